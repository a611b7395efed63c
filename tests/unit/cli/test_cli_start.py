"""How a command starts and ends: what it imports, its exit code, and that all is written."""

import subprocess
import sys

import pytest

from pubsubflow.cli.main import run

SERVICES = ("api", "bus", "store", "loader", "worker", "manager", "authoring", "retention")


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_commands_that_call_a_daemon_import_no_service():
    modules = ["dags", "runs", "tasks", "datasets", "triggers", "hooks", "pools", "dead_letters"]
    imports = ", ".join(f"pubsubflow.cli.commands.{name}" for name in modules)
    found = python(f"import sys, {imports}; print(*sys.modules)").stdout.split()
    assert "pubsubflow.client" in found
    assert not {f"pubsubflow.{name}" for name in SERVICES} & {*found}
    assert "pubsubflow.config.settings" not in found


@pytest.mark.parametrize(
    ("act", "code", "out"),
    [
        ("print('done', end='')", 3, "done"),
        ("import atexit; atexit.register(print, 'left')", 0, "left\n"),
        ("import sys; sys.stdout.close()", 1, ""),
        ("threading.Thread(target=lambda: (gate.wait(9), print('last'))).start()", 2, "last\n"),
    ],
)
def test_a_process_leaves_with_its_code_and_all_that_it_wrote(act, code, out):
    ended = python(
        "import threading\nfrom pubsubflow.cli.leaving import leave\ngate = threading.Event()\n"
        f"{act}\nthreading.Timer(0.05, gate.set).start() if 'gate.wait' in {act!r} else None\n"
        f"leave({code})"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, out, "")


def test_certificates_are_read_at_the_first_connection():
    ended = python(
        "import ssl\n"
        "from pubsubflow.cli.deferred_trust import DeferredTrust\n"
        "from aiohttp import connector\n"
        "context = connector._SSL_CONTEXT_VERIFIED\n"
        "assert type(context) is DeferredTrust and not context.get_ca_certs()\n"
        "context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='a.example')\n"
        "assert type(context) is ssl.SSLContext\n"
        "usual = ssl.create_default_context()\n"
        "assert context.get_ca_certs() == usual.get_ca_certs()\n"
        "assert (context.verify_mode, context.verify_flags, context.check_hostname) == "
        "(usual.verify_mode, usual.verify_flags, usual.check_hostname)\n"
    )
    assert ended.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(shell, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZSH_CUSTOM", raising=False)
    assert run(["--install-completion", "--shell", shell]) == 0
    assert "installed" in capsys.readouterr().out
    scripts = [each.read_text() for each in tmp_path.rglob("*pubsubflow*") if each.is_file()]
    assert any("why-not" in text and "dead-letters" in text for text in scripts)
