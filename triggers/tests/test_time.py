from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points

import msgspec
import pytest
from pubsubflow_triggers import Moment

from pubsubflow.errors import DefinitionError

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Watch:
    """A context whose clock jumps where it is told to sleep."""

    def __init__(self, start):
        self.time = start

    def now(self):
        return self.time

    async def sleep_until(self, moment):
        self.time = max(self.time, moment)


@pytest.mark.parametrize("start", [NOON - timedelta(hours=3), NOON + timedelta(hours=1)])
async def test_a_moment_fires_once_and_not_before_its_time(start):
    watch = Watch(start)
    fired = [event async for event in Moment(at=NOON).run(watch)]
    assert [event.payload for event in fired] == ["2026-11-20T12:00:00+00:00"]
    assert watch.now() >= NOON


def test_its_fields_are_its_serialised_form():
    packed = msgspec.json.encode(Moment(at=NOON))
    assert msgspec.json.decode(packed, type=Moment) == Moment(at=NOON)


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(DefinitionError, match="time zone"):
        Moment(at=datetime(2026, 11, 20, 12))  # noqa: DTZ001


def test_it_is_found_by_its_entry_point():
    (found,) = entry_points(group="pubsubflow.triggers", name="time.Moment")
    assert found.load() is Moment
