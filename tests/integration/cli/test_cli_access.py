"""The commands of docs/security.md, on daemons started as a user starts them."""

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from pubsubflow.cli.main import run
from support.certificates import Authority

PAGE = Path(__file__).parents[3] / "docs" / "security.md"
SERVER = "https://psf.example.com:8443"


RUN = "01900000-0000-7000-8000-000000000000"
REFUSED = """
dags pause x             | dags unpause x           | dags trigger x       | dags call x
dags promote x 1         | dags rollback x          | dags reload          | datasets emit x://a
runs cancel RUN          | runs retry RUN           | runs clear RUN --yes | runs tag RUN x
runs note RUN x          | runs mark failed RUN     | tasks clear RUN x --yes
tasks mark failed RUN x  | pools set x 1            | pools delete x       | connections delete x
connections export       | variables set x 1        | variables delete x   | dead-letters discard 1
dead-letters resend 1    | approvals answer RUN yes | backfills pause RUN  | tokens list
tokens create x --role viewer                       | tokens revoke x      | audit list
"""
SET_UP = {"useradd", "install"}


def lines():
    """Return the page's commands in order."""
    text = "".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    # Without those by which root makes an account and a folder for it.
    return [line for line in text.splitlines() if line and line.split()[0] not in SET_UP]


@contextmanager
def started(words, place):
    """Run a daemon by its command, on a free port; give its URL, if it has one, and its process."""
    reader, writer = os.pipe()
    port = words.index("--port") + 1
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pubsubflow.cli.main", *words[:port], "0", *words[port + 1 :]),
            *("--ready-fd", str(writer)),
        ],
        cwd=place,
        env={**os.environ, "PUBSUBFLOW_HOME": str(place / "home")},
        pass_fds=[writer],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        os.close(writer)
        with os.fdopen(reader) as ready:
            yield ready.readline().strip(), process
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def _logging_kept(monkeypatch):
    """Leave logging as it was: commands set it up."""
    root = logging.getLogger()
    kept, level, config = root.handlers, root.level, structlog.get_config()
    # A module's logger would keep the output of this test, which is closed after it.
    configure = structlog.configure
    monkeypatch.setattr(
        structlog,
        "configure",
        lambda **given: configure(**given | {"cache_logger_on_first_use": False}),
    )
    yield
    monkeypatch.undo()
    root.handlers = kept
    root.setLevel(level)
    structlog.configure(**config)


@pytest.fixture
def psf(capsys, monkeypatch, tmp_path, _logging_kept):
    """Run a command in this process, which is faster: code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run_here(*words, **environ):
        with monkeypatch.context() as patched:
            patched.setenv("PUBSUBFLOW_HOME", str(tmp_path / "home"))
            for name, value in environ.items():
                patched.setenv(name, value)
            code = run(list(map(str, words)))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_here


@pytest.fixture
def place(tmp_path, fresh_home):
    """A folder with DAGs, a certificate and the authority that signed it."""
    (tmp_path / "dags").mkdir()
    fresh_home(tmp_path / "home")
    Authority(tmp_path).sign("localhost", cert="fullchain.pem", key="privkey.pem")
    return tmp_path


def test_the_commands_of_the_page_work(psf, place):
    commands = [shlex.split(line) for line in lines()]
    assert len(commands) == 14, "a command came or went: see that this test runs it"
    create, emitter, listing, sales, bob, up = (words[1:] for words in commands[:6])
    with started(up, place) as (url, process):
        assert url == ""
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "--host 0.0.0.0" in said
    assert "pubsubflow tokens create" in said
    code, admin, said = psf(*create)
    assert (code, admin[:4]) == (0, "psf_"), said
    assert admin.strip() not in said
    with started(up, place) as (url, _):
        assert url.startswith("https://0.0.0.0:")
        remote = url.replace("0.0.0.0", "localhost")
        # by the home: no token, and a certificate of another name
        tokens = {"ann": admin.strip(), "shop": psf(*emitter)[1].strip()}
        assert {"ann", "shop"} <= set(psf(*listing)[1].split())
        assert [psf(*words)[0] for words in (sales, bob)] == [0, 0]
        environ = {}
        for words in commands[6:]:
            obey(psf, [word.replace(SERVER, remote) for word in words], environ, tokens)
        assert psf("tokens", "create", "far", "--role", "viewer", **environ)[0] == 0
        assert psf("tokens", "revoke", "far", **environ)[0] == 0
        kept = json.loads(psf("audit", "list", "--json")[1])
        assert [(each["asker"], each["object"]) for each in kept] == [
            ("ann", "far"),
            ("ann", "far"),
            ("anonymous", None),
            ("local", "bob"),
            ("local", "sales"),
            ("local", "shop"),
            ("local", "ann"),
        ]
        refuse_a_viewer(psf, environ)
        assert psf("tokens", "revoke", "ann")[0] == 0
        code, _, said = psf("dags", "list", **environ)
        assert code == 2
        assert "revoked" in said
        assert (place / "home" / "owner").stat().st_mode & 0o777 == 0o600


def refuse_a_viewer(psf, environ):
    """Try with a viewer's token what takes another role: one line that says which, and code 2."""
    token = psf("tokens", "create", "eye", "--role", "viewer")[1].strip()
    viewer = environ | {"PUBSUBFLOW_TOKEN": token}
    wrong = []
    for command in (
        each.strip() for line in REFUSED.strip().splitlines() for each in line.split("|")
    ):
        words = [RUN if word == "RUN" else word for word in command.split()]
        answer = code, out, said = psf(*words, **viewer)
        refused = re.search(r"needs the role (emitter|operator|admin)", said)
        if (code, out, said.count("\n")) != (2, "", 1) or not refused:
            wrong.append((command, answer))
    assert wrong == []
    assert psf("dags", "list", **viewer)[0] == 0


def obey(psf, words, environ, tokens):
    """Run one of the page's commands, as whoever it is meant for."""
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        environ[name] = value.replace("psf_…", tokens["ann"])
    elif words == ["pubsubflow", "dags", "list"]:
        trusted = "PUBSUBFLOW_CA" in environ
        code, _, said = psf(*words[1:], **environ)
        assert code == (0 if trusted else 3), said
        assert trusted or "--ca" in said
    elif words[0] == "curl":
        for token, status in ((tokens["shop"], None), ("psf_wrong", 401)):
            asked = [word.replace("psf_…", token) for word in words]
            done = subprocess.run(asked, capture_output=True, text=True, check=True)
            assert json.loads(done.stdout).get("status") == status, done.stdout
    else:
        assert words[0] == "pubsubflow"
        code, _, said = psf(*words[1:])
        assert code == 0, said


def test_tokens_of_a_database_are_created_without_a_daemon(psf, bare_database):
    database = ("--postgres-url", bare_database)
    made = psf("tokens", "create", "ops", "--role", "admin", *database, "--json")
    assert json.loads(made[1])["token"].startswith("psf_")
    (listed,) = json.loads(psf("tokens", "list", *database, "--json")[1])
    assert (listed["name"], listed["state"]) == ("ops", "live")
    code, _, said = psf("tokens", "create", "ops", "--role", "viewer", *database)
    assert code == 2
    assert "'ops'" in said
    assert psf("tokens", "revoke", "ops", *database)[0] == 0
    assert json.loads(psf("tokens", "list", *database, "--json")[1])[0]["state"] == "revoked"


def test_wrong_values_are_refused_before_anything_is_opened(psf, tmp_path):
    for words in (["x", "--role", "root"], ["x", "--role", "viewer", "--expires", "soon"]):
        assert psf("tokens", "create", *words)[0] == 2
    assert not (tmp_path / "home").exists()
