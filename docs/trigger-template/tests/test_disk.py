from datetime import timedelta

import pytest
from acme_triggers.disk import DiskHasSpace

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import TrialContext, VirtualClock, first_events, round_trip, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_it_fires_when_there_is_enough_space(tmp_path):
    (event,) = await first_events(DiskHasSpace(path=str(tmp_path), min_bytes=1))
    assert event.payload["free_bytes"] >= 1


async def test_it_polls_once_an_interval(tmp_path):
    clock = VirtualClock()
    trigger = DiskHasSpace(path=str(tmp_path), min_bytes=2**80)
    async with running(trigger, TrialContext(clock)) as run:
        await run.ctx.until("sleep")
        await clock.advance(timedelta(minutes=1))
        await run.ctx.until("sleep", 2)
        assert run.events == []


async def test_a_missing_folder_fails(tmp_path):
    with pytest.raises(TriggerError, match="does not exist"):
        await first_events(DiskHasSpace(path=str(tmp_path / "gone"), min_bytes=1))


def test_it_is_registered_and_survives_a_round_trip():
    trigger = DiskHasSpace(path="/data", min_bytes=1)
    assert round_trip(trigger) == trigger


def test_a_relative_path_is_refused():
    with pytest.raises(DefinitionError, match="absolute"):
        DiskHasSpace(path="data", min_bytes=1)
