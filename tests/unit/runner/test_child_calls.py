"""Child calls: callbacks, checks of connections, plugins; nothing of them goes on afterwards."""

from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import psutil
import pytest

import support
from pubsubflow.child_calls.parent import call_in_child

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("hangs", [False, True])
async def test_what_user_code_starts_ends_with_the_call(hangs, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(support.__file__).parents[1]))
    target = "support.child_call_targets:leave_children"
    async with call_in_child(target, hangs, 60) as lines:
        async for line in lines:
            pids = msgspec.json.decode(line)
            # A call that ends at once may have been cleared up by now.
            assert not hangs or all(psutil.pid_exists(pid) for pid in pids)
            break
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


async def test_an_end_in_the_middle_of_clearing_up_leaves_nothing(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(support.__file__).parents[1]))
    async with call_in_child("support.child_call_targets:leave_many", 60, 60) as lines:
        async for line in lines:
            pids = msgspec.json.decode(line)
            # The call ends by itself; it is ended while it clears up.
            with anyio.fail_after(60):
                while all(map(psutil.pid_exists, pids)):
                    await anyio.lowlevel.checkpoint()
            break
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


async def test_user_code_that_never_ends_is_ended_in_time_with_what_it_started(monkeypatch):
    """As where the daemon has died meanwhile."""
    monkeypatch.setenv("PYTHONPATH", str(Path(support.__file__).parents[1]))
    async with call_in_child("support.child_call_targets:leave_children", 1, 0.5) as lines:
        found = [msgspec.json.decode(line) async for line in lines]
    assert len(found) == 1
    assert [pid for pid in found[0] if psutil.pid_exists(pid)] == []
