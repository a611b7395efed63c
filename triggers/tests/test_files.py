import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from pubsubflow_triggers import FileAppears, FileGlob

from pubsubflow.errors import DefinitionError
from pubsubflow.testing import JumpingClock, TrialContext, VirtualClock, round_trip, running

pytestmark = pytest.mark.anyio


def still(**given):
    """A context in which no time passes: only a file-system event makes a trigger look again."""
    return TrialContext(VirtualClock(), **given)


async def test_a_file_that_is_there_fires_at_once(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("1,2\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    async with running(FileAppears(path=str(path)), still()) as run:
        event = await run.next()
    assert event.payload == {
        "path": str(path),
        "size": 4,
        "modified": "2001-09-09T01:46:40+00:00",
    }
    assert event.id == f"{path}:1000000000000000000:4"


async def test_the_system_tells_when_a_file_comes_and_when_it_is_another(tmp_path):
    path = tmp_path / "orders.csv"
    async with running(FileAppears(path=str(path)), still()) as run:
        await run.ctx.until("sleep")
        (tmp_path / "other.csv").write_text("")
        path.write_text("one")
        assert (await run.next()).payload["size"] == 3
        path.write_text("three")
        while (await run.next()).payload["size"] != 5:
            pass  # the empty file in between may have been seen, too


async def test_a_folder_that_does_not_exist_yet_is_looked_for(tmp_path):
    path = tmp_path / "later" / "orders.csv"
    async with running(FileAppears(path=str(path))) as run:
        await run.ctx.until("sleep", 3)
        path.parent.mkdir()
        path.write_text("1")
        assert (await run.next()).payload["path"] == str(path)


async def test_a_folder_that_was_replaced_is_watched_again(tmp_path):
    path = tmp_path / "inbox" / "orders.csv"
    path.parent.mkdir()
    clock = VirtualClock()
    async with running(FileAppears(path=str(path)), TrialContext(clock)) as run:
        await run.ctx.until("sleep")
        shutil.rmtree(path.parent)
        await run.ctx.until("sleep", 2)
        path.parent.mkdir()
        await clock.advance(10)
        await run.ctx.until("sleep", 3)
        path.write_text("1")
        assert (await run.next()).payload["size"] == 1


async def test_a_growing_file_fires_when_it_has_been_the_same_for_long_enough(tmp_path):
    path = tmp_path / "big.csv"
    path.write_text("a")
    trigger = FileAppears(path=str(path), stable_seconds=5, min_bytes=2)
    ctx = TrialContext(Growing(path, 4))
    began = ctx.now()
    async with running(trigger, ctx) as run:
        event = await run.next()
    assert event.payload["size"] == 5
    assert ctx.clock.grown_at is not None
    assert ctx.now() - ctx.clock.grown_at >= timedelta(seconds=5)
    assert ctx.now() - began < timedelta(minutes=5)


class Growing(JumpingClock):
    """With each sleep a file grows, so many times."""

    def __init__(self, path, times):
        super().__init__()
        self.path, self.left, self.grown_at = path, times, None

    async def sleep_until(self, moment):
        await super().sleep_until(moment)
        if self.left:
            self.left -= 1
            self.grown_at = self.now()
            with self.path.open("a") as file:
                file.write("b")


async def test_a_pattern_tells_of_each_file_once_also_after_a_restart(tmp_path):
    glob = FileGlob(pattern=str(tmp_path / "*.csv"))
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    async with running(glob, still()) as run:
        first = await run.next()
    async with running(glob, still(position=first.position)) as run:
        second = await run.next()
        (tmp_path / "c.csv").write_text("")
        third = await run.next()
    (tmp_path / "old.csv").write_text("from long ago")
    os.utime(tmp_path / "old.csv", (1, 1))
    async with running(glob, still(position=third.position)) as run:
        fourth = await run.next()
    names = [Path(event.payload["path"]).name for event in (first, second, third, fourth)]
    assert sorted(names[:2]) == ["a.csv", "b.csv"]
    assert names[2:] == ["c.csv", "old.csv"]


async def test_a_pattern_goes_through_folders(tmp_path):
    glob = FileGlob(pattern=str(tmp_path / "**" / "day=*" / "*.csv"))
    async with running(glob, still()) as run:
        await run.ctx.until("sleep")
        folder = tmp_path / "lake" / "day=20"
        folder.mkdir(parents=True)
        (folder / "orders.csv").write_text("1")
        assert (await run.next()).payload["path"] == str(folder / "orders.csv")


async def test_the_position_stays_small_and_what_is_told_twice_has_one_identity(tmp_path):
    glob = FileGlob(pattern=str(tmp_path / "*"))
    stamps = set()
    for number in range(300):
        path = tmp_path / f"{number}"
        path.write_text("")
        stamps.add(path.stat().st_ctime)
    async with running(glob, still()) as run:
        seen = {(await run.next()).id for _ in range(300)}
    assert len(seen) == 300
    position = run.events[-1].position
    assert len(position["reported"]) == 256
    async with running(glob, still(position=position)) as run:
        await run.ctx.until("sleep")
        repeated = {event.id for event in run.events}
        (tmp_path / "new").write_text("")
        while not (await run.next()).payload["path"].endswith("new"):
            pass
    assert repeated <= seen  # those of one tick of the clock with the oldest in the position
    assert len(stamps) < 300 or not repeated


def test_equal_ones_share_and_are_carried():
    trigger = FileAppears(path="/data/orders.csv", stable_seconds=2, min_bytes=1)
    assert round_trip(trigger) == trigger
    assert trigger.share_key() == FileAppears(**trigger_fields(trigger)).share_key()
    assert trigger.share_key() != FileAppears(path="/data/orders.csv").share_key()


def trigger_fields(trigger):
    return {name: getattr(trigger, name) for name in trigger.__struct_fields__}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FileAppears(path="data/orders.csv"), "absolute"),
        (lambda: FileAppears(path="/a", stable_seconds=-1), "negative"),
        (lambda: FileAppears(path="/a", interval=timedelta(0)), "interval"),
        (lambda: FileGlob(pattern="*.csv"), "absolute"),
        (lambda: FileGlob(pattern="/data/a.csv"), "no wildcard"),
    ],
)
def test_bad_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()
