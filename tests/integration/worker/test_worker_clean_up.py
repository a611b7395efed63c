"""What a sync task leaves behind is gone before the next task runs in its process."""

from pathlib import Path

import msgspec
import psutil
import pytest

pytestmark = pytest.mark.anyio

OWN_OOM_SCORE = int(Path("/proc/self/oom_score_adj").read_text())

DAG = """
import locale, os, signal, socket, subprocess, sys, time
from pubsubflow import Context, dag, task

def state():
    return {
        "directory": os.getcwd(),
        "environment": sorted(os.environ),
        "umask": os.umask(0o22),
        "usr1": str(signal.getsignal(signal.SIGUSR1)),
        "term": signal.getsignal(signal.SIGTERM).__name__,
        "timer": signal.getitimer(signal.ITIMER_REAL)[0],
        "timeout": socket.getdefaulttimeout(),
        "argv": sys.argv,
        "path": [each for each in sys.path if each == "/nowhere"],
        "limit": sys.getrecursionlimit(),
        "pid": os.getpid(),
        "oom": int(open("/proc/self/oom_score_adj").read()),
    }

@dag
def d():
    @task
    def look():
        return state()

    @task
    def change():
        os.chdir("/")
        os.environ["LEFT_BEHIND"] = "1"
        os.environ.pop("PATH", None)
        os.umask(0o777)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 60)
        socket.setdefaulttimeout(0.001)
        sys.argv.append("x")
        sys.path.insert(0, "/nowhere")
        sys.setrecursionlimit(5000)
        return os.getpid()

    @task
    def fail():
        os.chdir("/")
        raise ValueError("after a change")

    @task
    def output():
        subprocess.Popen(["yes"])
        return os.getpid()

    @task
    def session():
        subprocess.Popen(["sleep", "100"], start_new_session=True)
        return os.getpid()

    @task
    def orphan():
        subprocess.run("(setsid sleep 100 & sleep 100 &) ; sleep 0", shell=True)
        return os.getpid()

    look(), change(), fail(), output(), session(), orphan()
"""


def decoded(result):
    return msgspec.msgpack.decode(result.value)


@pytest.fixture
def dag(manager):
    return manager.load(DAG)


@pytest.mark.parametrize("name", ["change", "fail"])
async def test_a_task_finds_the_process_as_the_first_one_did(manager, worker, dag, name):
    before = decoded(await manager.run(dag, "look"))
    await manager.run(dag, name)
    after = decoded(await manager.run(dag, "look"))
    assert after == before
    assert after["timer"] == 0


@pytest.mark.parametrize("name", ["output", "session", "orphan"])
async def test_processes_that_a_task_leaves_are_killed(manager, worker, dag, name):
    order = await manager.send(manager.order(dag, name))
    pid = decoded(await manager.result(order))
    # They are killed before the result is sent.
    assert psutil.Process(pid).children(recursive=True) == []
    await manager.until(
        lambda: any("left running were killed" in text for text in manager.texts(order))
    )
    assert decoded(await manager.run(dag, "look"))["pid"] == pid


async def test_user_code_is_what_the_kernel_ends_when_memory_runs_out(manager, worker, dag):
    assert decoded(await manager.run(dag, "look"))["oom"] == 500 > OWN_OOM_SCORE


BESIDE = """
import asyncio, os, time
from pathlib import Path
from pubsubflow import Context, dag, task

os.environ["FROM_FILE"] = "1"

@dag
def d():
    @task
    def patch():
        time.sleep = print
        return os.getpid()

    @task
    def late():
        import found_late
        return [os.getpid(), os.environ["FROM_FILE"], time.sleep is print, found_late.here]

    @task
    async def change():
        os.environ["LEFT_BEHIND"] = "1"
        os.environ.pop("FROM_FILE")
        os.umask(0o777)

    @task
    async def linger(folder: str):
        os.environ["LEFT_BEHIND"] = "1"
        print("changed")
        while not Path(folder, "go").exists():
            await asyncio.sleep(0.02)

    @task
    async def look():
        return [os.getpid(), os.environ.get("LEFT_BEHIND"), os.environ["FROM_FILE"], os.umask(0o22)]

    patch(), late(), change(), linger(FOLDER), look()
"""


@pytest.fixture
def beside(manager, tmp_path):
    text = BESIDE.replace("FOLDER", repr(str(tmp_path)))
    return manager.load(text, helpers={"found_late.py": "here = True"})


async def test_a_process_whose_functions_a_task_replaced_runs_no_other_task(
    manager, worker, beside
):
    first = decoded(await manager.run(beside, "late"))
    assert decoded(await manager.run(beside, "late")) == first
    order = await manager.send(manager.order(beside, "patch"))
    pid = decoded(await manager.result(order))
    assert any("replaced for the whole process: time.sleep" in t for t in manager.texts(order))
    other, *rest = decoded(await manager.run(beside, "late"))
    assert other != pid
    assert rest == first[1:] == ["1", False, True]


async def test_an_async_task_finds_what_one_before_it_or_beside_it_has_not_changed(
    manager, worker, beside, tmp_path
):
    before = decoded(await manager.run(beside, "look"))
    order = await manager.send(manager.order(beside, "change"))
    await manager.result(order)
    (line,) = [text for text in manager.texts(order) if "whole process" in text]
    assert line == "the task changed for the whole process: environment, umask; that is undone"
    assert decoded(await manager.run(beside, "look")) == before

    order = await manager.send(manager.order(beside, "linger"))
    await manager.until(lambda: "changed" in manager.texts(order))
    pid, *rest = decoded(await manager.run(beside, "look"))
    assert pid != before[0]
    assert rest == before[1:]
    (tmp_path / "go").touch()
    await manager.result(order)
    assert any("no further task begins in this process" in t for t in manager.texts(order))


LEFT = """
import asyncio, os, subprocess, sys
from pubsubflow import dag, task

@dag
def d():
    @task
    async def look():
        return os.getpid()

    @task
    async def piped():
        child = await asyncio.create_subprocess_exec("yes")
        return [os.getpid(), child.pid]

    @task
    async def popen():
        child = subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100"], start_new_session=True)
        return [os.getpid(), child.pid]

    @task
    async def detached():
        subprocess.run("(setsid sleep 100 &) ; sleep 0", shell=True)
        return [os.getpid()]

    @task
    async def forked():
        if os.fork() == 0:
            os.setsid()
            os.execvp("sleep", ["sleep", "100"])
        return [os.getpid()]

    @task
    async def beside(folder: str):
        child = await asyncio.create_subprocess_exec("sleep", "100")
        print("started")
        while not os.path.exists(f"{folder}/go"):
            await asyncio.sleep(0.01)
        running = child.returncode is None and os.path.exists(f"/proc/{child.pid}")
        child.kill()
        await child.wait()
        return running

    look(), piped(), popen(), detached(), forked(), beside("FOLDER")
"""


@pytest.mark.parametrize("name", ["piped", "popen", "detached", "forked"])
async def test_processes_that_an_async_task_leaves_are_killed(manager, worker, name):
    dag = manager.load(LEFT)
    order = await manager.send(manager.order(dag, name))
    pid, *_ = decoded(await manager.result(order))
    assert [each for each in psutil.Process(pid).children() if each.status() != "zombie"] == []
    await manager.until(
        lambda: any("left running were killed" in text for text in manager.texts(order))
    )
    assert decoded(await manager.run(dag, "look")) == pid


async def test_an_async_task_that_ends_leaves_the_processes_of_those_beside_it_alone(
    manager, worker, tmp_path
):
    dag = manager.load(LEFT.replace("FOLDER", str(tmp_path)))
    beside = await manager.send(manager.order(dag, "beside"))
    await manager.until(lambda: "started" in manager.texts(beside))
    for name in ("piped", "detached"):
        await manager.result(await manager.send(manager.order(dag, name)))
    (tmp_path / "go").touch()
    assert decoded(await manager.result(beside)) is True
