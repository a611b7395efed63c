"""What a task can and cannot do to the daemon, as docs/security.md says it, tried for real."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import pubsubflow
from pubsubflow.client import Client
from pubsubflow.runner.task_account import TaskAccount, needed_paths
from support.embedded import UNPRIVILEGED

DAG = Path(__file__).parents[2] / "support" / "attack_dag.py"
PAGE = Path(__file__).parents[3] / "docs" / "security.md"
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<own>[^|]+) \| (?P<same>[^|]+) \|$", re.MULTILINE)
SECRET = "hush-hush-4711"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="accounts and /proc are Linux's"),
]


def readable_interpreter():
    """Return a Python that every account can run, with what is imported here."""
    nobody = TaskAccount("nobody", UNPRIVILEGED, UNPRIVILEGED)
    if os.geteuid() != 0 or nobody.refusal(needed_paths()) is None:
        return sys.executable, {}
    other = f"/usr/bin/python{sysconfig.get_python_version()}"
    if not os.access(other, os.X_OK):
        pytest.skip("no Python that another account can run")
    places = [str(Path(pubsubflow.__file__).parents[1]), *filter(_is_site, sys.path)]
    return other, {"PYTHONPATH": os.pathsep.join(places)}


def _is_site(path):
    return path.endswith("site-packages")


@contextmanager
def open_folder(uid):
    folder = Path(tempfile.mkdtemp(prefix="bounds-"))
    try:
        folder.chmod(0o711)
        (folder / "dags").mkdir()
        shutil.copy(DAG, folder / "dags")
        (folder / "out").mkdir()
        (folder / "out").chmod(0o777)
        config = folder / "pubsubflow.toml"
        config.write_text(f'[metrics]\ntoken = "{SECRET}"\n')
        config.chmod(0o600)
        for each in (folder, config):
            os.chown(each, uid, -1)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def daemon(folder, uid, **environ):
    """Run a daemon under an account, and yield its process and URL."""
    program, more = readable_interpreter()
    reader, writer = os.pipe()
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PUBSUBFLOW")}
    options = {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}
    process = subprocess.Popen(
        [
            *(program, "-m", "pubsubflow.cli.main", "up", str(folder / "dags"), "--port", "0"),
            *("--home", str(folder / "home"), "--config", str(folder / "pubsubflow.toml")),
            *("--ready-fd", str(writer)),
        ],
        pass_fds=[writer],
        cwd=folder,
        env={**kept, **more, **environ, "HOME": str(folder), "PUBSUBFLOW_SECRET": SECRET},
        **options,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            url = ready.readline().strip()
        assert url
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def places(home, process, url, secrets):
    children = psutil.Process(process.pid).children()
    return {
        "home": str(home),
        "pid": process.pid,
        "config": str(home.parent / "pubsubflow.toml"),
        "nats_pid": next(each.pid for each in children if "nats" in each.name()),
        "nats_port": int((home / "nats.port").read_text()),
        "secrets": [SECRET, *secrets],
        "url": url,
        "out": str(home.parent / "out" / "found"),
    }


async def attacked(uid, **environ):
    """Return what became of each attack by a task of a daemon, and as whom an async task runs."""
    with open_folder(uid) as folder, daemon(folder, uid, **environ) as (process, url):
        home = folder / "home"
        token = json.loads((home / "owner").read_text())["token"]
        secrets = json.loads((home / "secrets").read_text()).values()
        async with Client(url, token=token) as client:
            await client.create_token("ann", role="admin")
            await client.set_connection("other", uri="x://u@h", secrets={"password": "p"})
            await client.set_connection(
                "sealed", uri="x://u@h", secrets={"password": "p"}, dags=["keep*"]
            )
            at = places(home, process, url, [*secrets, token])
            keeping = await client.trigger("keeper", params={"at": json.dumps(at)})
            for name in ("asynchronous", "attacker"):
                run_id = await client.trigger(name, params={"at": json.dumps(at)})
                ended = await client.wait(run_id, timeout_seconds=60)
                assert ended.state == "success", [
                    line async for line in client.logs(run_id, ended.tasks[0].task_id)
                ]
            assert (await client.wait(keeping, timeout_seconds=60)).state == "success"
        found = json.loads((folder / "out" / "found").read_text())
        assert process.poll() is None
        found["async uid"] = int((folder / "out" / "found.uid").read_text())
        found["modes"] = [oct(stat.S_IMODE(each.stat().st_mode)) for each in (home, home / "keys")]
        return found


def as_documented(column):
    """Return what docs/security.md says of each attack: whether it is prevented."""
    table = PAGE.read_text().split("attacks -->")[1]
    return {
        row["what"].strip(): row[column].strip().startswith("prevented")
        for row in ROW.finditer(table)
        if not row["what"].startswith(("---", "a task tries to"))
    }


def prevented(found):
    return {
        name: text.startswith("refused")
        for name, text in found.items()
        if isinstance(text, str) and text.startswith(("refused", "works"))
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon has other accounts")
async def test_tasks_of_roots_daemon_have_an_account_that_can_do_what_the_page_says():
    found = await attacked(0)
    assert prevented(found) == as_documented("own")
    status = found["status"]
    uid = int(status["Uid"][0])
    assert uid not in (0, UNPRIVILEGED)
    assert status["Uid"] == status["Gid"] == [str(uid)] * 4
    assert status["Groups"] == []
    assert int(status["CapEff"][0], 16) == int(status["CapBnd"][0], 16) == 0
    assert status["NoNewPrivs"] == ["1"]
    assert found["async uid"] == uid
    assert found["mine"]["HOME"].endswith(f"home-{uid}")
    assert found["modes"] == ["0o700", "0o600"]
    shutil.rmtree(Path(found["mine"]["HOME"]).parent)


async def test_tasks_under_the_daemons_account_can_do_what_the_page_says():
    uid = os.geteuid() or UNPRIVILEGED
    found = await attacked(uid)
    assert prevented(found) == as_documented("same")
    assert found["async uid"] == uid
    assert found["modes"] == ["0o700", "0o600"]
