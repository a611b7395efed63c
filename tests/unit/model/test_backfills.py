"""Plans of backfills: what is planned, in which order, how much at once, and what is made again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pubsubflow.model.schedule.backfills import (
    STORED_PLAN,
    PartitionPlan,
    Reprocess,
    TickPlan,
    room_for,
)
from pubsubflow.model.schedule.timetable import (
    CronSpec,
    IntervalSpec,
    OnceSpec,
    next_tick,
    ticks_between,
)
from pubsubflow.model.wire.messages import encode

ZONES = ("UTC", "Europe/Warsaw", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
CRONS = ("0 16 * * *", "30 2 * * *", "*/17 * * * *", "15 1,2 * * *", "0 0 1 * *", "* 2 * * 0")
SPRING, AUTUMN = datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)
crons = st.builds(CronSpec, st.sampled_from(CRONS), st.sampled_from(ZONES))
timetables = st.one_of(
    crons, st.builds(IntervalSpec, st.sampled_from((1800.0, 4321.5, 86_400.0))), st.just(OnceSpec())
)
moments = st.one_of(
    st.sampled_from((SPRING, AUTUMN)).flatmap(
        lambda near: st.integers(0, 5 * 1440).map(lambda each: near + timedelta(minutes=each))
    ),
    st.integers(0, 365 * 24).map(lambda each: datetime(2026, 1, 1, tzinfo=UTC) + each * HOUR),
)
HOUR = timedelta(hours=1)
DAY = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def plans(draw):
    since = draw(moments)
    until = since + draw(st.integers(1, 24 * 12)) * HOUR
    start = draw(st.none() | st.just(since + timedelta(hours=7)))
    end = draw(st.none() | st.just(until - timedelta(hours=3)))
    chosen = draw(st.lists(timetables, min_size=1, max_size=2))
    return TickPlan(tuple(chosen), since, until, start, end, draw(st.booleans()))


def one_by_one(timetable, since, until, start=None, end=None):
    """All ticks, by the function that every tick of a schedule is found with."""
    tick = next_tick(timetable, since - timedelta(microseconds=1), start, end)
    while tick is not None and tick < until:
        yield tick
        tick = next_tick(timetable, tick, start, end)


@given(crons, moments, st.integers(1, 24 * 6))
@example(CronSpec("30 2 * * *", "Europe/Warsaw"), SPRING, 24 * 6)
@example(CronSpec("15 1,2 * * *", "Europe/Warsaw"), AUTUMN, 24 * 6)
@example(CronSpec("*/17 * * * *", "Australia/Lord_Howe"), datetime(2026, 4, 3, tzinfo=UTC), 96)
def test_many_ticks_at_once_are_those_found_one_by_one(timetable, since, hours):
    until = since + hours * HOUR
    assert [*ticks_between(timetable, since, until)] == [*one_by_one(timetable, since, until)]


@given(plans(), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_a_plan_taken_in_pieces_is_the_whole_plan_in_its_order(plan, pieces):
    plan = STORED_PLAN.decode(encode(plan))
    expected = sorted(
        {
            tick
            for each in plan.timetables
            for tick in one_by_one(each, plan.since, plan.until, plan.start, plan.end)
        }
    )
    assert list(plan.moments()) == expected
    taken, step = [], 0
    while True:
        piece = plan.take(taken[-1] if taken else None, pieces[step % len(pieces)])
        assert len(piece) <= pieces[step % len(pieces)]
        if not piece:
            break
        taken += piece
        step += 1
    assert taken == expected[:: -1 if plan.newest_first else 1]


@given(st.integers(0, 60), st.booleans(), st.lists(st.integers(1, 17), min_size=1))
def test_partitions_taken_in_pieces_are_all_of_them_in_order(count, newest_first, pieces):
    plan, keys = PartitionPlan(count, newest_first), [f"p{number}" for number in range(count)]
    taken, step = [], 0
    while len(taken) < count:
        first, last = plan.bounds(len(taken), pieces[step % len(pieces)])
        taken += plan.ordered(keys[first - 1 : last])  # as Postgres slices arrays
        step += 1
    assert taken == keys[:: -1 if newest_first else 1]


@given(st.data())
def test_a_backfill_decides_about_each_planned_run_once_and_keeps_its_limits(data):
    """A whole backfill, played: runs are made while there is room and end in any order."""
    plan = data.draw(plans())
    own = data.draw(st.none() | st.integers(1, 4))
    limit, others = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 4))
    reprocess = data.draw(st.sampled_from(Reprocess))
    total = len(list(plan.moments()))
    states = st.none() | st.booleans()
    existing = [data.draw(states) for _ in range(min(total, 30))]
    reached, decided, made, active = None, 0, [], 0
    while decided < len(existing):
        counted = others + (active if own is None else 0)
        room = room_for(own, active, limit=limit, others=counted, waiting=0)
        for moment in plan.take(reached, data.draw(st.integers(1, 7))):
            if not room or decided == len(existing):
                break
            if reprocess.makes(existing[decided]):
                made.append(moment)
                active, room = active + 1, room - 1
            reached, decided = moment, decided + 1
        assert active <= (own or max(0, limit - others))
        if active:
            active -= data.draw(st.integers(1, active))
        elif others:
            others -= 1
    expected = [
        moment
        for moment, done in zip(plan.take(None, len(existing)), existing, strict=True)
        if reprocess.makes(done)
    ]
    assert made == expected


@pytest.mark.parametrize("done", [None, False, True])
def test_what_is_made_depends_on_the_last_run(done):
    assert Reprocess.MISSING.makes(done) == (done is None)
    assert Reprocess.FAILED.makes(done) == (not done)
    assert Reprocess.ALL.makes(done)


def test_a_backfill_without_a_limit_of_its_own_waits_behind_queued_runs():
    assert room_for(None, 0, limit=16, others=3, waiting=0) == 13
    assert room_for(None, 0, limit=16, others=3, waiting=1) == 0
    assert room_for(5, 2, limit=1, others=9, waiting=9) == 3
    assert room_for(2, 5, limit=1, others=9, waiting=9) == 0


@pytest.mark.parametrize("expression", ["* * * * *", "0 * * * *"])
def test_a_hundred_thousand_ticks_are_planned_in_a_moment(expression):
    """From anywhere in the plan, and in either order, the next ticks cost the same."""
    until = DAY + timedelta(days=4000)
    for newest_first in (False, True):
        plan = TickPlan((CronSpec(expression),), DAY, until, newest_first=newest_first)
        found = plan.take(DAY + timedelta(days=2000), 3)
        step = timedelta(minutes=1) if expression[0] == "*" else HOUR
        signed = -step if newest_first else step
        assert found == [DAY + timedelta(days=2000) + signed * n for n in (1, 2, 3)]
