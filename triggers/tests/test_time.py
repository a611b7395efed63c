from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pubsubflow_triggers import CronWindow, Delta, Moment

from pubsubflow.errors import DefinitionError
from pubsubflow.testing import JumpingClock, TrialContext, first_events, round_trip

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
WARSAW = ZoneInfo("Europe/Warsaw")


def at(moment, **given):
    return TrialContext(JumpingClock(moment), **given)


@pytest.mark.parametrize("start", [NOON - timedelta(hours=3), NOON + timedelta(hours=1)])
async def test_a_moment_fires_once_and_not_before_its_time(start):
    ctx = at(start)
    fired = await first_events(Moment(at=NOON), 2, ctx=ctx)
    assert [event.payload for event in fired] == ["2026-11-20T12:00:00+00:00"]
    assert ctx.now() == max(start, NOON)


async def test_a_delta_counts_from_the_start_of_the_wait():
    ctx = at(NOON)
    ctx.clock.jump(NOON + timedelta(minutes=50))
    (fired,) = await first_events(Delta(delta=timedelta(hours=1)), 2, ctx=ctx)
    assert (fired.payload, ctx.now()) == ("2026-11-20T13:00:00+00:00", NOON + timedelta(hours=1))


def test_both_are_timers_for_the_clock():
    assert Moment(at=NOON).timer() == NOON
    assert Delta(delta=timedelta(hours=1)).timer() == timedelta(hours=1)
    assert CronWindow(cron="0 22 * * *", duration=timedelta(hours=2)).timer() is None


@pytest.mark.parametrize(
    ("now", "fires"),
    [("21:59", "22:00"), ("22:00", "22:00"), ("23:59", "23:59"), ("00:00", "22:00")],
)
async def test_a_window_fires_at_once_while_it_is_open_else_when_it_opens(now, fires):
    ctx = at(datetime.fromisoformat(f"2026-11-20T{now}+00:00"))
    window = CronWindow(cron="0 22 * * *", duration=timedelta(hours=2))
    (fired,) = await first_events(window, ctx=ctx)
    assert fired.payload == {
        "opens": "2026-11-20T22:00:00+00:00",
        "closes": "2026-11-21T00:00:00+00:00",
    }
    assert ctx.now() == datetime.fromisoformat(f"2026-11-20T{fires}+00:00")


@pytest.mark.parametrize(
    ("local", "opens"),
    [
        ("2026-03-28T12:00", "2026-03-29T03:00+02:00"),  # 02:30 is left out by the clocks
        ("2026-10-24T12:00", "2026-10-25T02:30+02:00"),  # 02:30 comes twice
    ],
)
async def test_a_window_opens_once_when_the_clocks_change(local, opens):
    ctx = at(datetime.fromisoformat(local).replace(tzinfo=WARSAW))
    window = CronWindow(cron="30 2 * * *", tz="Europe/Warsaw", duration=timedelta(hours=2))
    first, second = await first_events(window, 2, ctx=ctx)
    opening = datetime.fromisoformat(opens)
    assert datetime.fromisoformat(first.payload["opens"]) == opening
    assert datetime.fromisoformat(first.payload["closes"]) == opening + timedelta(hours=2)
    second_opens = datetime.fromisoformat(second.payload["opens"]).astimezone(WARSAW)
    assert (second_opens.hour, second_opens.date() - opening.date()) == (2, timedelta(days=1))


async def test_a_window_that_was_told_is_not_told_again_after_a_restart():
    window = CronWindow(cron="0 * * * *", duration=timedelta(minutes=30))
    (first,) = await first_events(window, ctx=at(NOON))
    (second,) = await first_events(
        window, ctx=at(NOON + timedelta(minutes=5), position=first.position)
    )
    assert (first.id, second.id) == ("2026-11-20T12:00:00+00:00", "2026-11-20T13:00:00+00:00")


@pytest.mark.parametrize(
    "trigger",
    [
        Moment(at=NOON),
        Delta(delta=timedelta(hours=1)),
        CronWindow(cron="0 22 * * *", duration=timedelta(hours=2), tz="Europe/Warsaw"),
    ],
)
def test_fields_are_the_serialised_form(trigger):
    assert round_trip(trigger) == trigger


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Moment(at=datetime(2026, 11, 20, 12)), "time zone"),  # noqa: DTZ001
        (lambda: Delta(delta=timedelta(seconds=-1)), "not be negative"),
        (lambda: CronWindow(cron="0 22 * *", duration=timedelta(hours=1)), "five fields"),
        (lambda: CronWindow(cron="0 0 30 2 *", duration=timedelta(hours=1)), "day-of-month"),
        (lambda: CronWindow(cron="0 22 * * *", duration=timedelta(0)), "above 0"),
        (lambda: CronWindow(cron="* * * * *", duration=timedelta(1), tz="X"), "time zone"),
    ],
)
def test_bad_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()
