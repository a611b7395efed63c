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
    # A command's time is that of its imports: without an event loop, and for a pipe without rich.
    heavy = ("asyncio", "anyio", "aiohttp", "rich.console", "pubsubflow.model.schedule.conditions")
    assert not {*heavy} & {*found}


def test_a_command_that_needs_no_daemon_imports_no_server_library():
    code = (
        "import sys\n"
        "from pubsubflow.cli.main import run\n"
        "run(['nonsense'])\n"
        "assert not [name for name in sys.modules if name.startswith('pubsubflow.cli.commands')]\n"
        "from pubsubflow.cli.commands.local import check, compilation, project, settings\n"
        "settings.loader_settings(None)\n"
        "print(*sys.modules)"
    )
    ended = python(code)
    found = {*ended.stdout.split()}
    assert "pubsubflow.loader.once" in found, ended.stderr
    services = {f"pubsubflow.{name}.service" for name in ("alerts", "api", "loader", "manager")}
    servers = {"aiohttp", "asyncpg", "nats", "pubsubflow.daemon", "pubsubflow.store.database"}
    # What DAG files need is imported where they are: in the processes that import them.
    assert not (services | servers | {"pubsubflow.authoring", "cryptography", "jsonschema"}) & found


def test_the_process_of_an_attempt_elsewhere_imports_no_http():
    code = "import sys, pubsubflow.worker.executors.attempt; print(*sys.modules)"
    found = {*python(code).stdout.split()}
    assert "nats.aio.client" in found
    assert not {"aiohttp", "asyncpg"} & found


def test_a_daemon_starts_its_processes_before_it_imports_its_services():
    code = (
        "import sys\n"
        "from pubsubflow.cli.shell.parameter import leave_out_parser\n"
        "leave_out_parser()\n"
        "import pubsubflow.cli.commands.daemon\n"
        "print(*sys.modules)"
    )
    found = {*python(code).stdout.split()}
    assert "pubsubflow.processes" in found
    late = {"composition", "resources", "bus.connection", "store.database", "client", "loader.once"}
    libraries = {"aiohttp", "asyncpg", "nats", "cyclopts", "rich", "greenlet", "cryptography"}
    assert not ({f"pubsubflow.{each}" for each in late} | libraries) & found


def test_a_daemon_imports_nothing_that_dag_files_need():
    code = (
        "import sys, pubsubflow.cli.commands.daemon\n"
        "pubsubflow.daemon.import_services()\n"
        "print(*sys.modules)\n"
        "import aiohttp, nats\n"
        "aiohttp.ClientSession, nats.js.JetStreamContext  # at their first use\n"
    )
    ended = python(code)
    found = {*ended.stdout.split()}
    assert not ended.stderr
    assert "pubsubflow.api.service" in found
    # Schemas and certificates are imported by those who have some, metrics' texts by a request.
    late = {"arrow", "isoduration", "rfc3986_validator", "cryptography.x509.base"}
    late |= {"cryptography.hazmat.bindings._rust"}  # for the first secret or signature
    late |= {"jsonschema", "prometheus_client", "rich.console"}
    late |= {"aiohttp.client", "aiohttp.connector", "nats.js"}  # for the first request to others
    assert not ({"pubsubflow.authoring", "pubsubflow.testing"} | late) & found


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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(shell, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZSH_CUSTOM", raising=False)
    assert run(["--install-completion", "--shell", shell]) == 0
    assert "installed" in capsys.readouterr().out
    scripts = [each.read_text() for each in tmp_path.rglob("*pubsubflow*") if each.is_file()]
    assert any("why-not" in text and "dead-letters" in text for text in scripts)
