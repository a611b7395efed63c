"""Deadlines and freshness as pure functions, under a virtual clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import DAG, Dataset, Deadline, DefinitionError
from pubsubflow.authoring.datasets import freshness_callbacks
from pubsubflow.loader.fresh_conflicts import with_conflicts
from pubsubflow.model.alerts import (
    DatasetLook,
    DeadlineSpec,
    SeenEvent,
    alert_uri,
    deadline_due,
    describe_deadline,
    describe_freshness,
    judge_freshness,
    look_is_over,
)
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.spec import LoadedFile

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def test_a_deadline_counts_from_the_queue_the_tick_or_a_moment():
    fixed = DeadlineSpec(3600, "2026-12-01T00:00:00+00:00")
    assert deadline_due(DeadlineSpec(3600), NOW, None) == NOW + HOUR
    assert deadline_due(DeadlineSpec(3600, "logical_time"), NOW, NOW - HOUR) == NOW
    assert deadline_due(DeadlineSpec(3600, "logical_time"), NOW, None) is None
    assert deadline_due(fixed, NOW, None) == datetime(2026, 12, 1, 1, tzinfo=UTC)
    assert describe_deadline(DeadlineSpec(90)) == "not ended 0:01:30 after it was made"


def test_deadlines_are_in_the_spec():
    made = DAG(
        "x", deadlines=[Deadline(after=HOUR, since=datetime(2026, 12, 1, tzinfo=UTC), notify=print)]
    )
    (spec,) = made.to_spec("", "").deadlines
    assert spec == DeadlineSpec(3600, "2026-12-01T00:00:00+00:00", ("print",))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deadline(after=timedelta(0)),
        lambda: Deadline(after=HOUR, since="tomorrow"),
        lambda: Deadline(after=HOUR, notify="ann"),
        lambda: DAG("x", deadlines=["1h"]),
    ],
)
def test_what_is_no_deadline_is_refused(make):
    with pytest.raises(DefinitionError):
        make()


def test_alerts_about_a_subject_are_a_dataset_of_their_own():
    assert alert_uri("deadline", "etl") == "pubsubflow://alerts/deadline/etl"
    for subject in ("s3://lake/a/b?c", "x" * 1500, "é:" * 500):
        uri = alert_uri("freshness", subject)
        assert normalise_uri(uri) == uri
        assert len(uri) <= 1500


class World:
    """A dataset, its events, and looks at it as the store makes them, on a virtual clock."""

    def __init__(self, seconds):
        self.seconds, self.now, self.stale = seconds, NOW, False
        self.events, self.look = [], DatasetLook(NOW)
        self.read = 0

    def emit(self, age):
        self.events.append(SeenEvent(len(self.events) + 1, self.now - age * MINUTE, self.now))

    def judge(self):
        newest = [each for each in reversed(self.events) if each.number > self.look.seen]
        limit = 2
        while limit < len(newest) and not look_is_over(self.look, newest[:limit]):
            limit *= 2
        found = judge_freshness(self.seconds, self.look, newest[:limit], self.now)
        self.look, self.stale, self.read = found.look, found.stale, len(newest[:limit])
        return found


@given(
    hours=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.sampled_from(["wait", "event", "look"]), st.integers(0, 400)), max_size=60
    ),
)
def test_a_dataset_is_stale_once_it_had_no_event_for_that_long(hours, steps):
    """Looks at any moments, and as few events as these read, decide as all events do."""
    world = World(hours * 3600)
    for step, number in steps:
        if step == "wait":
            world.now += number * MINUTE
        elif step == "event":
            world.emit(number)
        else:
            found = world.judge()
            last = max((min(each.time, each.recorded_at) for each in world.events), default=NOW)
            assert found.due_at == last + hours * HOUR
            assert found.stale == (world.now >= found.due_at)


@given(
    ahead=st.integers(-1000, 1000),
    before=st.lists(st.tuples(st.integers(1, 90), st.booleans()), max_size=5),
    during=st.lists(st.tuples(st.integers(1, 90), st.booleans()), max_size=5),
)
def test_a_clock_that_was_wrong_for_a_while_silences_nothing(ahead, before, during):
    """Since it is right again, a dataset without events is stale within its time, and only then."""
    world = World(3600)
    for jump, steps in ((0 * HOUR, before), (ahead * HOUR, during)):
        world.now += jump
        for minutes, event in steps:
            world.now += minutes * MINUTE
            if event:
                world.emit(0)
            world.judge()
    world.now -= ahead * HOUR
    right = world.now
    found = world.judge()
    assert found.due_at <= right + HOUR
    world.now = max(right, found.due_at)
    assert world.judge().stale
    # The next event ends it, however far ahead the times are that others were recorded with.
    world.now += MINUTE
    world.emit(0)
    assert not world.judge().stale
    world.now += HOUR
    assert world.judge().stale


def test_a_look_reads_few_events_and_counts_each_once():
    world = World(3600)
    for _ in range(1000):
        world.now += timedelta(seconds=1)
        world.emit(0)
    assert not world.judge().stale
    assert world.read == 2
    for _ in range(1000):
        world.emit(100)
    world.now += 2 * MINUTE
    world.judge()
    world.judge()
    assert world.read == 0
    assert describe_freshness("x://a", 3600, world.look) == (
        "dataset x://a has had no event for 1:00:00: the last one was at 2026-11-29T12:16:40+00:00"
    )
    assert "none since 2026-11-29T12:00:00+00:00" in describe_freshness("x", 60, DatasetLook(NOW))


def test_of_several_declarations_the_shorter_time_counts():
    slow, loud = Dataset("x://a", fresh=2 * HOUR), Dataset("x://a", fresh=HOUR, notify=print)
    quiet = Dataset("x://a", fresh=HOUR)
    assert freshness_callbacks([slow, quiet, loud, Dataset("x://a")], "x://a") == (print,)
    assert freshness_callbacks([slow], "x://a") == freshness_callbacks([], "x://a") == ()
    files = {
        name: LoadedFile(name, datasets=tuple(each.to_spec() for each in made))
        for name, made in (("a.py", [slow]), ("b.py", [loud]), ("c.py", [quiet]))
    }
    warned = {name: each.warnings for name, each in with_conflicts(files).items() if each.warnings}
    line = (
        "dataset 'x://a': fresh=2:00:00 has no effect, as b.py declares fresh=1:00:00: the shorter "
        "time counts"
    )
    assert warned == {"a.py": (line,)}


@pytest.mark.parametrize(
    "keywords",
    [
        {"fresh": timedelta(0)},
        {"fresh": "1h"},
        {"fresh": HOUR, "notify": "ann"},
        {"notify": print},
    ],
)
def test_what_is_no_freshness_is_refused(keywords):
    with pytest.raises(DefinitionError):
        Dataset("x://a", **keywords)
