"""Partition keys: mapping, windows across clock changes, leap years and ISO weeks."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.schedule.partitions import (
    ROLL_UPS,
    FanOut,
    Fixed,
    Identity,
    Partitioning,
    Product,
    RollUp,
    map_key,
    parts_of,
)  # fmt: skip

WARSAW, KOLKATA = "Europe/Warsaw", "Asia/Kolkata"
dates = st.dates(date(1, 1, 3), date(9998, 12, 31))


def test_identity_and_a_fixed_key():
    assert map_key(Identity(), "eu") == (("eu", "eu"),)
    assert map_key(Fixed("all"), "eu") == (("all", "eu"),)
    assert parts_of(Identity(), "eu") == parts_of(Fixed("all"), "all") == 1


@pytest.mark.parametrize(
    ("mapper", "key", "run", "own"),
    [
        (RollUp("day", "hour"), "2026-11-20T14", "2026-11-20", "2026-11-20T14Z"),
        (RollUp("day", "hour"), "2026-11-20T14:30:00Z", "2026-11-20", "2026-11-20T14Z"),
        (RollUp("day", "hour", WARSAW), "2026-11-20T23Z", "2026-11-21", "2026-11-20T23Z"),
        (RollUp("day", "hour", WARSAW), "2026-11-21T00", "2026-11-21", "2026-11-20T23Z"),
        (RollUp("day", "hour", WARSAW), "2026-10-25T02+02:00", "2026-10-25", "2026-10-25T00Z"),
        (RollUp("day", "hour", WARSAW), "2026-10-25T02+01:00", "2026-10-25", "2026-10-25T01Z"),
        (RollUp("day", "hour", KOLKATA), "2026-11-20T00", "2026-11-20", "2026-11-19T18:30Z"),
        (RollUp("day", "hour", KOLKATA), "2026-11-20T23", "2026-11-20", "2026-11-20T17:30Z"),
        (RollUp("month", "hour"), "2024-02-29T23", "2024-02", "2024-02-29T23Z"),
        (RollUp("week", "day"), "2027-01-01", "2026-W53", "2027-01-01"),
        (RollUp("week", "day"), "2024-12-30", "2025-W01", "2024-12-30"),
        (RollUp("week", "day"), "20241230", "2025-W01", "2024-12-30"),
        (RollUp("month", "day"), "2024-02-29", "2024-02", "2024-02-29"),
        (RollUp("year", "month"), "2026-11", "2026", "2026-11"),
        (RollUp("year", "day"), "0999-11-02", "0999", "0999-11-02"),
    ],
)
def test_a_part_counts_for_its_window(mapper, key, run, own):
    assert map_key(mapper, key) == ((run, own),)


@pytest.mark.parametrize(
    ("mapper", "window", "parts"),
    [
        (RollUp("day", "hour", WARSAW), "2026-03-29", 23),
        (RollUp("day", "hour", WARSAW), "2026-10-25", 25),
        (RollUp("day", "hour", WARSAW), "2026-11-20", 24),
        (RollUp("day", "hour", KOLKATA), "2026-11-20", 24),
        (RollUp("week", "hour", WARSAW), "2026-W13", 167),
        (RollUp("month", "day"), "2024-02", 29),
        (RollUp("month", "day"), "2026-02", 28),
        (RollUp("month", "day"), "1900-02", 28),
        (RollUp("year", "day"), "2024", 366),
        (RollUp("year", "month"), "2026", 12),
        (RollUp("week", "day"), "2026-W53", 7),
        (Product((RollUp("day", "hour"), Identity())), "2026-11-20|eu", 24),
        (Product((RollUp("day", "hour"), RollUp("month", "day"))), "2026-11-20|2026-02", 672),
    ],
)
def test_how_many_parts_a_window_has(mapper, window, parts):
    assert parts_of(mapper, window) == parts


@pytest.mark.parametrize(
    ("of", "to", "tz", "key", "count", "first", "last"),
    [
        ("day", "hour", WARSAW, "2026-10-25", 25, "2026-10-24T22Z", "2026-10-25T22Z"),
        ("day", "hour", WARSAW, "2026-03-29", 23, "2026-03-28T23Z", "2026-03-29T21Z"),
        ("week", "day", "UTC", "2026-W53", 7, "2026-12-28", "2027-01-03"),
        ("month", "day", "UTC", "2024-02", 29, "2024-02-01", "2024-02-29"),
        ("year", "month", "UTC", "2026", 12, "2026-01", "2026-12"),
    ],
)
def test_one_key_counts_for_the_windows_in_it(of, to, tz, key, count, first, last):
    found = [run for run, _ in map_key(FanOut(of, to, tz), key)]
    assert (len(found), found[0], found[-1]) == (count, first, last)


def test_a_table_says_for_which_keys_one_counts():
    table = FanOut(table={"eu": ("de", "pl")})
    assert map_key(table, "eu") == (("de", "eu"), ("pl", "eu"))
    assert map_key(table, "us") == ()


def test_dimensions_are_mapped_one_by_one():
    mapper = Product((RollUp("day", "hour"), FanOut(table={"eu": ("de", "pl")})))
    assert map_key(mapper, "2026-11-20T03|eu") == (
        ("2026-11-20|de", "2026-11-20T03Z|eu"),
        ("2026-11-20|pl", "2026-11-20T03Z|eu"),
    )


@pytest.mark.parametrize(
    ("mapper", "key"),
    [
        (RollUp("day", "hour"), "2026-11-20"),
        (RollUp("day", "hour"), "2026-11-20T25"),
        (RollUp("day", "hour"), "nonsense"),
        (RollUp("month", "day"), "2026-02-29"),
        (RollUp("year", "month"), "2026-13"),
        (RollUp("day", "hour", "Asia/Tokyo"), "0001-01-01T00"),
        (RollUp("day", "hour", "America/New_York"), "0001-01-01T00Z"),
        (FanOut("week", "day"), "2026-47"),
        (FanOut("week", "day"), "2026-W54"),
        (FanOut("year", "month"), "9999"),
        (FanOut("day", "hour"), "9999-12-31"),
        (Product((Identity(), Identity())), "alone"),
        (Product((RollUp("day", "hour"), Identity())), "eu|2026-11-20T00"),
    ],
)
def test_a_key_of_the_wrong_kind_says_so(mapper, key):
    with pytest.raises(InvalidInput, match="partition"):
        map_key(mapper, key)


@pytest.mark.parametrize(
    ("mapper", "key"),
    [
        (RollUp("day", "hour"), "9999-12-31"),
        (RollUp("year", "month"), "9999"),
        (RollUp("day", "hour"), "eu"),
        (Product((Identity(), Identity())), "alone"),
    ],
)
def test_a_window_of_the_wrong_kind_says_so(mapper, key):
    with pytest.raises(InvalidInput, match="partition"):
        parts_of(mapper, key)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RollUp("hour", "day"),
        lambda: RollUp("month", "week"),
        lambda: FanOut("hour", "day"),
        lambda: RollUp("day", "hour", "Mars/Base"),
        lambda: FanOut(tz="Mars/Base"),
    ],
)
def test_windows_that_do_not_nest_are_refused(make):
    with pytest.raises(DefinitionError):
        make()


def test_a_dataset_may_have_a_mapper_of_its_own():
    by = Partitioning(by_uri={"x://hours": RollUp("day", "hour")})
    assert by.mapper("x://hours") == RollUp("day", "hour")
    assert by.mapper("x://days") == Identity()


@given(dates, st.integers(0, 23), st.sampled_from(("UTC", WARSAW, KOLKATA, "America/St_Johns")))
def test_every_hour_of_a_day_counts_for_that_day_and_no_other(day, hour, tz):
    mapper = RollUp("day", "hour", tz)
    ((window, own),) = map_key(mapper, f"{day.isoformat()}T{hour:02}")
    assert map_key(mapper, own) == ((window, own),) or ":" in own
    if day.year > 1950:
        assert window == day.isoformat()


@given(st.dates(date(1950, 1, 1), date(2100, 1, 1)), st.sampled_from(("UTC", WARSAW)))
def test_a_days_hours_and_its_fan_out_are_the_same(day, tz):
    key = day.isoformat()
    hours = [run for run, _ in map_key(FanOut("day", "hour", tz), key)]
    assert len(set(hours)) == parts_of(RollUp("day", "hour", tz), key)
    assert {map_key(RollUp("day", "hour", tz), hour)[0][0] for hour in hours} == {key}


@given(dates, st.sampled_from([(of, to) for of, wider in ROLL_UPS.items() for to in wider]))
def test_windows_hold_each_part_once(day, units):
    of, to = units
    part = {"hour": f"{day}T00", "day": f"{day}", "month": f"{day:%Y-%m}".zfill(7)}[of]
    ((window, own),) = map_key(RollUp(to, of), part)
    parts = [run for run, _ in map_key(FanOut(to, of), window)]
    assert parts.count(own) == 1
    assert len(parts) == len(set(parts)) == parts_of(RollUp(to, of), window)


@given(st.dates(date(2, 1, 1), date(9998, 1, 1)))
def test_weeks_are_those_of_the_calendar(day):
    year, week, _ = day.isocalendar()
    assert map_key(RollUp("week", "day"), day.isoformat())[0][0] == f"{year:04}-W{week:02}"
    monday = day - timedelta(days=day.weekday())
    assert map_key(FanOut("week", "day"), f"{year:04}-W{week:02}")[0][0] == monday.isoformat()
