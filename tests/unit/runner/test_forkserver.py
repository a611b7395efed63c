import ast
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from pubsubflow.runner.forkserver import ForkServer
from support import fork_targets

pytestmark = pytest.mark.anyio
HERE = fork_targets.__name__


@pytest.fixture
async def server():
    async with ForkServer.start() as running:
        yield running


async def test_child_speaks_frames_until_we_close(server):
    child = await server.fork(f"{HERE}:echo", b"hello")
    assert await child.receive() == b"hello"
    big = os.urandom(3_000_000)
    await child.send(big)
    assert await child.receive() == big
    child.channel.close()
    assert await child.wait() == 0


async def test_exit_codes_and_signals_are_reported(server):
    child = await server.fork(f"{HERE}:leave", b"7")
    assert await child.wait() == 7
    with pytest.raises(anyio.EndOfStream):
        await child.receive()
    nap = await server.fork(f"{HERE}:nap")
    assert await nap.receive() == b"up"
    nap.kill(signal.SIGTERM)
    assert await nap.wait() == -signal.SIGTERM


async def test_forks_that_a_frozen_zygote_does_not_take_are_made_by_the_next(server):
    codes = []

    async def fork(number: int) -> None:
        child = await server.fork(f"{HERE}:leave", str(number).encode())
        codes.append(await child.wait())

    await fork(0)
    zygote = server._zygote
    zygote._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # room for a few requests
    os.kill(zygote._process.pid, signal.SIGSTOP)
    async with anyio.create_task_group() as group:
        for number in range(1, 20):
            group.start_soon(fork, number)
        await anyio.wait_all_tasks_blocked()
        os.kill(zygote._process.pid, signal.SIGKILL)
    assert sorted(codes) == list(range(20))


async def test_output_goes_where_the_caller_says(server):
    reader, writer = os.pipe()
    child = await server.fork(f"{HERE}:fail", b"broken", output=(writer, writer))
    os.close(writer)
    assert await child.wait() == 1
    with open(reader) as text:  # noqa: ASYNC230, PTH123
        assert "ValueError: broken" in text.read()


async def test_child_starts_clean(server):
    async with await server.fork(f"{HERE}:show") as child:
        facts = ast.literal_eval((await child.receive()).decode())
    assert len(facts.pop("fds")) == 4
    assert facts == {"session": True, "default_handlers": True, "stdin": "", "blocked": []}


async def test_modules_of_the_working_directory_are_not_the_zygotes(tmp_path, monkeypatch):
    """A daemon may be started where others write, or in a checkout of another version."""
    (tmp_path / "pubsubflow").mkdir()
    for name in ("pubsubflow/__init__", "signal", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    async with ForkServer.start() as server:
        child = await server.fork(f"{HERE}:echo", b"hello")
        assert await child.receive() == b"hello"
        child.channel.close()
        assert await child.wait() == 0


async def test_killing_a_child_takes_what_it_started_along(server):
    async with await server.fork(f"{HERE}:start_grandchild") as child:
        grandchild = psutil.Process(int(await child.receive()))
    await gone(grandchild)


async def test_a_child_that_dies_takes_what_it_started_along(server):
    child = await server.fork(f"{HERE}:start_grandchild")
    grandchild = psutil.Process(int(await child.receive()))
    os.kill(child.pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    await gone(grandchild)


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")


@linux
async def test_what_a_child_left_in_a_session_of_its_own_ends_with_it(server):
    async with await server.fork(f"{HERE}:leave_daemon", b"stay") as child:
        left = psutil.Process(int(await child.receive()))
        assert left.is_running()  # while the child lives, it may need it
        await child.send(b"end")
        await child.wait()
    assert left.wait(10) is None


@linux
def test_what_a_child_left_ends_with_the_daemon_that_is_killed():
    program = (
        "import anyio\n"
        "from pubsubflow.runner.forkserver import ForkServer\n"
        "async def main():\n"
        "    async with ForkServer.start() as server:\n"
        f"        child = await server.fork('{HERE}:leave_daemon', b'stay')\n"
        "        print((await child.receive()).decode(), flush=True)\n"
        "        await anyio.sleep_forever()\n"
        "anyio.run(main)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    daemon = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environ
    )
    with daemon:
        left = psutil.Process(int(daemon.stdout.readline()))
        daemon.kill()
    assert left.wait(10) is None


async def test_a_lost_zygote_is_replaced_and_its_children_end(server):
    child = await server.fork(f"{HERE}:burn")
    await child.receive()
    zygote = psutil.Process(child.pid).ppid()
    os.kill(zygote, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    async with await server.fork(f"{HERE}:echo", b"again") as other:
        assert await other.receive() == b"again"


async def test_many_forks_at_once_while_the_zygote_is_killed(server):
    first = await server.fork(f"{HERE}:echo", b"x")
    zygote = psutil.Process(first.pid).ppid()
    answers = []

    async def fork(number):
        with contextlib.suppress(anyio.EndOfStream):
            async with await server.fork(f"{HERE}:echo", b"%d" % number) as child:
                await child.receive()
        answers.append(number)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(fork, number)
                if number == 10:
                    os.kill(zygote, signal.SIGKILL)
    assert sorted(answers) == list(range(20))


async def test_modules_that_can_wait_are_imported_for_children_once_asked():
    names = b"pubsubflow.runner.frames wave sched"

    async def imported() -> bytes:
        async with await server.fork(f"{HERE}:list_modules", names) as child:
            return await child.receive()

    later = ("wave", "no_such_module_here", "sched")
    async with ForkServer.start(preload=(), later=later) as server:
        assert await imported() == b"pubsubflow.runner.frames"
        await server.import_later()
        await server.import_later()  # they are imported once
        assert await imported() == names
        os.kill(server._zygote._process.pid, signal.SIGKILL)
        with anyio.fail_after(20):
            while (found := await imported()) != names:  # the next zygote has yet to be asked
                assert found == b"pubsubflow.runner.frames"


async def test_children_end_with_the_server():
    async with ForkServer.start() as server:
        child = await server.fork(f"{HERE}:burn")
        process = psutil.Process(int(await child.receive()))
    assert not process.is_running()
    assert await child.wait() == -signal.SIGKILL


HOST = """
import anyio, sys
from pubsubflow.runner.forkserver import ForkServer
async def main():
    async with ForkServer.start() as server:
        child = await server.fork("support.fork_targets:burn")
        busy = int(await child.receive())
        child = await server.fork("support.fork_targets:start_grandchild")
        print(busy, child.pid, int(await child.receive()), flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


async def test_everything_ends_with_a_daemon_that_is_killed():
    folders = [str(Path(__file__).parent), *sys.path]
    host = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", HOST],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
    )
    with host:
        processes = [psutil.Process(int(pid)) for pid in host.stdout.readline().split()]
        processes.append(psutil.Process(processes[0].ppid()))
        host.kill()
    for process in processes:
        await gone(process)


async def gone(process):
    """Wait for the end of a process that is not our child."""
    try:
        await anyio.to_thread.run_sync(process.wait, 10)
    except psutil.NoSuchProcess:
        return
