import os
import subprocess
import sys
from datetime import timedelta

import anyio
import psutil
import pytest
from anyio.to_thread import run_sync
from pubsubflow_triggers import Command, ProcessEnds
from pubsubflow_triggers.process import start_time

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import TrialContext, VirtualClock, first_events, round_trip, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def child():
    """A process that ends when its input does."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


@pytest.fixture(params=["pidfd", "polling"])
def way(request, monkeypatch):
    if request.param == "polling":
        monkeypatch.delattr(os, "pidfd_open")
    return request.param


async def test_it_fires_when_the_process_ends(child, way):
    async with running(ProcessEnds.of(child.pid)) as run:
        if way == "polling":
            await run.ctx.until("sleep", 2)
        assert run.events == []
        child.stdin.close()
        assert (await run.next()).payload == {"pid": child.pid}


async def test_a_process_that_has_ended_before_fires_at_once(child, way):
    trigger = ProcessEnds.of(child.pid)
    child.stdin.close()
    child.wait()
    assert len(await first_events(trigger, 2)) == 1
    assert len(await first_events(ProcessEnds(pid=child.pid), 2)) == 1


async def test_a_later_process_with_the_same_number_is_another_one(child, way):
    before = start_time(child.pid).rpartition("/")[0] + "/1"
    trigger = ProcessEnds(pid=child.pid, start_time=before)
    assert len(await first_events(trigger, 2)) == 1
    assert child.poll() is None


async def test_a_process_of_another_machine_fails(child):
    trigger = ProcessEnds(pid=child.pid, start_time="elsewhere/boot/1")
    with pytest.raises(TriggerError, match="runs on 'elsewhere'"):
        await first_events(trigger)


def python(code, **fields):
    return Command(argv=(sys.executable, "-c", code), **fields)


async def test_a_command_fires_with_its_code_and_the_end_of_its_output(tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "quiet")
    code = "import os, sys; print(os.getcwd()); print(os.environ['A'], file=sys.stderr); exit(3)"
    trigger = python(code, cwd=str(tmp_path), env={"A": "env:API_TOKEN"}, check=False)
    (event,) = await first_events(trigger, 2)
    assert event.payload["code"] == 3
    assert sorted(event.payload["output"].split()) == sorted([str(tmp_path), "quiet"])


async def test_only_the_end_of_a_long_output_is_kept():
    (event,) = await first_events(python("print('a' * 10**6 + 'end')", tail_bytes=6))
    assert event.payload == {"code": 0, "output": "aaend\n"}


async def test_a_command_that_fails_says_its_last_line():
    with pytest.raises(TriggerError, match="ended with 1: ValueError: no bread"):
        await first_events(python("raise ValueError('no bread')"))


@pytest.mark.parametrize("fields", [{"argv": ("/nowhere/program",)}, {"cwd": "/nowhere"}])
async def test_a_command_that_cannot_be_started_fails(fields):
    with pytest.raises(TriggerError, match="cannot be started"):
        await first_events(Command(**{"argv": ("cat",)} | fields))


async def ended(pid):
    """Return when a process that was asked to end has ended."""
    async with running(ProcessEnds(pid=pid)) as run:
        await run.next()


async def test_a_command_ends_with_all_that_it_started_when_nobody_waits_any_more(tmp_path):
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    code = f"""
import subprocess
child = subprocess.Popen(['sleep', '600'])
open({str(ready)!r}, 'w').write(str(child.pid))
child.wait()
"""
    async with running(python(code), TrialContext(VirtualClock())) as run:
        await run.ctx.until("command.started")
        (_, fields) = run.ctx.logged[-1]
        grandchild = int(await run_sync(ready.read_text, abandon_on_cancel=True))
        assert start_time(grandchild) is not None
    assert not psutil.pid_exists(fields["pid"])
    await ended(grandchild)


async def test_what_a_command_leaves_behind_neither_holds_it_up_nor_stays():
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    (event,) = await first_events(python(code))
    await ended(int(event.payload["output"]))


async def test_a_command_dies_with_a_triggerer_that_is_killed():
    code = """
import anyio, sys
from pubsubflow.testing import TrialContext, first_events
from pubsubflow_triggers import Command
class Context(TrialContext):
    def log(self, event, **fields):
        print(fields["pid"], flush=True)
anyio.run(lambda: first_events(Command(argv=("sleep", "600")), ctx=Context()))
"""
    async with await anyio.open_process([sys.executable, "-c", code], stderr=None) as triggerer:
        pid = int(await triggerer.stdout.receive())
        triggerer.kill()
    await ended(pid)


@pytest.mark.parametrize(
    "trigger",
    [ProcessEnds(pid=1, start_time="a/b/1"), Command(argv=("a", "b"), env={"A": "env:B"})],
)
def test_fields_are_the_serialised_form(trigger):
    assert round_trip(trigger) == trigger


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ProcessEnds(pid=0), "pid"),
        (lambda: ProcessEnds(pid=1, interval=timedelta(0)), "interval"),
        (lambda: ProcessEnds.of(2**22 + 1), "no process"),
        (lambda: Command(argv=()), "argv"),
        (lambda: Command(argv=("a\0b",)), "zero byte"),
        (lambda: Command(argv=("a",), tail_bytes=-1), "tail_bytes"),
    ],
)
def test_bad_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()
