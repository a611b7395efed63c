"""Ticks: right across clock changes, within their bounds."""

import itertools
import math
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec, latest_tick, next_tick

WARSAW = "Europe/Warsaw"


def moment(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def moments(first, last):
    bounds = map(datetime.fromisoformat, (first, last))
    return st.datetimes(*bounds, timezones=st.just(UTC))


def ticks(timetable, after, count):
    found = []
    tick = moment(after)
    for _ in range(count):
        tick = timetable.after(tick)
        found.append(f"{tick:%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("0 * * * *", ["29 00:00", "29 01:00", "29 02:00"]),
        ("30 2 * * *", ["29 01:00", "30 00:30", "31 00:30"]),
        ("0 3 * * *", ["29 01:00", "30 01:00", "31 01:00"]),
    ],
)
def test_a_tick_in_the_hour_that_spring_leaves_out_comes_right_after_it(expression, found):
    assert ticks(CronSpec(expression, WARSAW), "2026-03-28T23:30", 3) == found


def test_repeated_ticks_within_that_hour_are_left_out():
    found = ["30 00:00", "30 00:30", "31 00:00"]
    assert ticks(CronSpec("*/30 2 * * *", WARSAW), "2026-03-28T23:30", 3) == found


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("0 * * * *", ["24 23:00", "25 00:00", "25 01:00", "25 02:00"]),
        ("30 2 * * *", ["25 00:30", "26 01:30", "27 01:30", "28 01:30"]),
        ("*/30 * * * *", ["24 23:00", "24 23:30", "25 00:00", "25 00:30"]),
        ("0 16 * * *", ["25 15:00", "26 15:00", "27 15:00", "28 15:00"]),
    ],
)
def test_a_tick_in_the_hour_that_autumn_repeats_comes_once(expression, found):
    assert ticks(CronSpec(expression, WARSAW), "2026-10-24T22:30", 4) == found


def test_ticks_are_in_utc():
    tick = CronSpec("0 16 * * *", WARSAW).after(moment("2026-07-01T00:00"))
    assert tick == moment("2026-07-01T14:00")
    assert tick.tzinfo is UTC


CHANGES = {
    WARSAW: ("2026-03-29T01:00", "2026-10-25T01:00"),
    "Europe/London": ("2026-03-29T01:00", "2026-10-25T01:00"),
    "America/New_York": ("2026-03-08T07:00", "2026-11-01T06:00"),
    "America/Santiago": ("2026-04-05T03:00", "2026-09-06T04:00"),
    "America/Havana": ("2026-03-08T05:00", "2026-11-01T05:00"),
    "Africa/Cairo": ("2026-04-23T22:00", "2026-10-29T21:00"),
    "Africa/Casablanca": ("2026-02-15T02:00", "2026-03-22T02:00"),
    "Asia/Beirut": ("2026-03-28T22:00", "2026-10-24T21:00"),
    "Australia/Lord_Howe": ("2026-04-04T15:00", "2026-10-03T15:30"),  # by half an hour
    "Pacific/Apia": ("2011-12-30T10:00", "2012-03-31T14:00"),  # one leaves out a day
}
EXPRESSIONS = [
    "* * * * *", "*/15 * * * *", "0 * * * *", "* 2 * * *", "*/20 0-3 * * *",
    "30 2 * * *", "15 1 * * *", "45 1 * * *", "5 0-4 * * *", "0,59 23,0,1,2,3 * * *", "30 0 * * 0",
]  # fmt: skip


def shown_ticks(expression: str, zone: str, first: datetime, minutes: int) -> list[datetime]:
    """Return the ticks of a time, minute by minute: what a person with a clock would note."""
    every = set(times_of_day(expression, first - timedelta(days=3), minutes + 6 * 1440))
    once = not any(field.startswith("*") for field in expression.split()[:2])
    found, seen, before = [], set(), None
    for number in range(-1440, minutes):
        moment = first + timedelta(minutes=number)
        shown = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        # Times that the clock leaves out come right after them, if they come once a day.
        left_out = {each for each in every if before and before < each < shown} if once else set()
        due = (left_out | ({shown} & every)) - (seen if once else set())
        if due:
            found.append(moment)
        seen |= due | left_out
        before = shown if before is None else max(before, shown)
    return [each for each in found if each > first]


def times_of_day(expression: str, first: datetime, minutes: int):
    end = first.replace(tzinfo=None) + timedelta(minutes=minutes)
    return itertools.takewhile(
        lambda each: each < end, CronSim(expression, first.replace(tzinfo=None))
    )


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_around_a_change_of_the_clock_the_ticks_are_those_that_a_person_would_note(
    zone, expression
):
    for change in map(moment, CHANGES[zone]):
        first = change - timedelta(hours=5)
        expected = shown_ticks(expression, zone, first, 11 * 60)
        cron, found, tick = CronSpec(expression, zone), [], first
        while (tick := cron.after(tick)) < first + timedelta(hours=11):
            found.append(tick)
        assert found == expected


@given(st.sampled_from(list(CHANGES)), st.sampled_from(EXPRESSIONS), st.data())
def test_the_tick_after_any_moment_is_the_next_of_those_that_are_walked(zone, expression, data):
    change = moment(data.draw(st.sampled_from(CHANGES[zone])))
    cron = CronSpec(expression, zone)
    walked = [cron.after(change - timedelta(days=1))]
    while walked[-1] < change + timedelta(days=2):
        walked.append(cron.after(walked[-1]))
    seconds = data.draw(st.floats(-80_000, 80_000))
    after = change + timedelta(seconds=seconds)
    assert cron.after(after) == next(tick for tick in walked if tick > after)


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "0 0 29 2 *"]),
    st.sampled_from(["UTC", WARSAW, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    moments("2026-01-01", "2027-12-31"),
)
def test_time_goes_on(expression, zone, after):
    cron = CronSpec(expression, zone)
    first = cron.after(after)
    assert first > after
    second = cron.after(first)
    assert second > first
    assert cron.after(second - timedelta(microseconds=1)) == second


@pytest.mark.parametrize(
    ("expression", "zone", "reason"),
    [
        ("* * * *", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("", "UTC", "five fields"),
        ("61 * * * *", "UTC", "bad cron"),
        ("0 0 30 2 *", "UTC", "bad cron"),
        (None, "UTC", "five fields"),
        ("* * * * *", "Mars/Base", "unknown time zone"),
        ("* * * * *", "../etc/passwd", "unknown time zone"),
    ],
)
def test_a_bad_cron_says_why(expression, zone, reason):
    with pytest.raises(DefinitionError, match=reason):
        CronSpec(expression, zone)


def test_an_interval_counts_from_1970_or_from_its_start():
    quarter = IntervalSpec(900)
    assert ticks(quarter, "2026-11-20T10:07", 2) == ["20 10:15", "20 10:30"]
    start = moment("2026-11-20T10:05")
    assert quarter.after(moment("2026-11-20T10:07"), start) == moment("2026-11-20T10:20")
    assert quarter.after(moment("2026-11-20T09:00"), start) == start
    assert quarter.after(start, start) == moment("2026-11-20T10:20")


@pytest.mark.parametrize("seconds", [0, -1, 0.09, math.nan, math.inf, 1e12])
def test_an_interval_has_bounds(seconds):
    with pytest.raises(DefinitionError, match="at least"):
        IntervalSpec(seconds)


@given(st.floats(0.1, 10**8), moments("1971-01-01", "9000-01-01"))
def test_an_interval_goes_on(seconds, after):
    tick = IntervalSpec(seconds).after(after)
    assert after < tick <= after + timedelta(seconds=seconds + 1e-6)


DAILY = CronSpec("0 16 * * *")


def test_no_tick_comes_before_the_start_and_the_start_itself_counts():
    start = moment("2026-11-20T16:00")
    assert next_tick(DAILY, moment("2026-01-01T00:00"), start, None) == start
    assert next_tick(IntervalSpec(60), moment("2026-01-01T00:00"), start, None) == start
    assert next_tick(DAILY, start, start, None) == start + timedelta(days=1)


def test_no_tick_comes_after_the_end_and_the_end_itself_counts():
    end = moment("2026-11-21T16:00")
    assert next_tick(DAILY, moment("2026-11-21T15:00"), None, end) == end
    assert next_tick(DAILY, end, None, end) is None


def test_bounds_may_be_in_another_zone():
    start = datetime(2026, 11, 20, 18, 0, tzinfo=timezone(timedelta(hours=2)))
    assert next_tick(DAILY, moment("2026-01-01T00:00"), start, start) == start


def test_catching_up_gives_every_tick_from_the_start_on():
    start, end = moment("2026-11-18T00:00"), moment("2026-11-20T23:00")
    found, tick = [], start - timedelta(microseconds=1)
    while (tick := next_tick(DAILY, tick, start, end)) is not None:
        found.append(tick)
    assert found == [moment(f"2026-11-{day}T16:00") for day in (18, 19, 20)]


@pytest.mark.parametrize(
    "timetable",
    [
        IntervalSpec(0.1),
        IntervalSpec(7.3),
        IntervalSpec(86_400 * 40),
        CronSpec("* * * * *"),
        CronSpec("0 3 * * 1"),
        CronSpec("30 2 * * *", "Europe/Warsaw"),
        CronSpec("0 0 29 2 *"),
    ],
)
@pytest.mark.parametrize("end", [None, datetime(2027, 3, 1, 12, tzinfo=UTC)])
def test_the_latest_tick_is_the_one_before_the_next(timetable, end):
    """Also of millions, at once."""
    after = datetime(2026, 11, 20, 1, 2, 3, 400_000, UTC)
    for until in (after + timedelta(seconds=1), after + timedelta(days=400)):
        found = latest_tick(timetable, after, until, None, end)
        if found is None:
            following = next_tick(timetable, after, None, end)
            assert following is None or following > until
            continue
        assert after < found <= until
        following = next_tick(timetable, found, None, end)
        assert following is None or following > until
