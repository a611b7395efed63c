"""Partition keys in formats of their own, as Airflow's mappers have them."""

import pytest

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.schedule.partitions import (
    FanOut,
    Identity,
    Product,
    keys_of,
    map_key,
    parts_of,
    rolls_up,
)
from pubsubflow.model.schedule.written_periods import (
    KeyRollUp,
    PeriodFanOut,
    PeriodRollUp,
    Periods,
    Scatter,
)

MOMENT = "2024-03-13T10:42:15"
WEEK = "%Y-%m-%d (W%V)"
DAY = Periods("day", "%Y-%m-%d")
MONTH = Periods("month", "%Y-%m", "%Y-%m-%d")


@pytest.mark.parametrize(
    ("mapper", "key", "run"),
    [
        (Periods("hour", "%Y-%m-%dT%H"), MOMENT, "2024-03-13T10"),
        (DAY, MOMENT, "2024-03-13"),
        (Periods("week", WEEK), MOMENT, "2024-03-11 (W11)"),
        (Periods("month", "%Y-%m"), MOMENT, "2024-03"),
        (Periods("quarter", "%Y-Q{quarter}"), MOMENT, "2024-Q1"),
        (Periods("year", "%Y"), MOMENT, "2024"),
        (Periods("day", "%d.%m.%Y", "%Y%m%d%H%z", "Asia/Tokyo"), "2024031320Z", "14.03.2024"),
        (Product((Identity(), DAY)), f"us|{MOMENT}", "us|2024-03-13"),
    ],
)
def test_a_moment_maps_to_the_period_that_holds_it(mapper, key, run):
    ((found, own),) = map_key(mapper, key)
    assert found == run
    assert own == key
    assert not rolls_up(mapper)
    assert parts_of(mapper, run) == 1


@pytest.mark.parametrize(
    ("mapper", "run", "parts", "first", "last"),
    [
        (PeriodRollUp(DAY, "day"), "2024-03-13", 24, "2024-03-13T00:00:00", "2024-03-13T23:00:00"),
        (PeriodRollUp(MONTH, "month"), "2024-02", 29, "2024-02-01", "2024-02-29"),
        (PeriodRollUp(MONTH, "month", backward=True), "2024-03", 29, "2024-02-02", "2024-03-01"),
        (
            PeriodRollUp(Periods("week", WEEK, "%Y-%m-%d"), "week"),
            "2024-03-11 (W11)",
            7,
            "2024-03-11",
            "2024-03-17",
        ),
        (
            PeriodRollUp(Periods("quarter", "%Y-Q{quarter}", "%Y-%m"), "quarter"),
            "2024-Q4",
            3,
            "2024-10",
            "2024-12",
        ),
        (
            PeriodRollUp(Periods("year", "%Y", "%Y-%m"), "year", backward=True),
            "2024",
            12,
            "2023-02",
            "2024-01",
        ),
        (
            PeriodRollUp(Periods("hour", "%Y-%m-%dT%H"), "hour"),
            "2024-03-13T10",
            60,
            "2024-03-13T10:00:00",
            "2024-03-13T10:59:00",
        ),
    ],
)
def test_a_run_needs_the_keys_of_its_window(mapper, run, parts, first, last):
    members = list(keys_of(mapper, run))
    assert (len(members), members[0], members[-1]) == (parts, first, last)
    assert parts_of(mapper, run) == parts
    assert rolls_up(mapper)
    if not mapper.backward:
        assert map_key(mapper, last) == ((run, last),)


def test_keys_beside_the_window_count_for_nothing():
    assert map_key(PeriodRollUp(DAY, "day"), MOMENT) == ()
    regions = KeyRollUp("all", ("us", "eu"))
    assert map_key(regions, "us") == (("all", "us"),)
    assert map_key(regions, "pl") == ()
    with pytest.raises(InvalidInput, match="is not 'all'"):
        parts_of(regions, "some")
    with pytest.raises(InvalidInput, match="is not a day"):
        parts_of(PeriodRollUp(DAY, "day"), "2024-03")


@pytest.mark.parametrize(("at_least", "needed"), [(None, 3), (2, 2), (5, 5), (-1, 2), (-4, 0)])
def test_fewer_keys_may_suffice(at_least, needed):
    assert parts_of(KeyRollUp("all", ("us", "eu", "apac"), at_least), "all") == needed


def test_one_key_maps_to_several():
    week = Periods("week", WEEK)
    days = PeriodFanOut(week, "week", "%Y-%m-%d")
    assert [run for run, _ in map_key(days, MOMENT)][::6] == ["2024-03-11", "2024-03-17"]
    before = PeriodFanOut(week, "week", "%Y-%m-%d", backward=True)
    assert [run for run, _ in map_key(before, MOMENT)][::6] == ["2024-03-05", "2024-03-11"]
    with pytest.raises(InvalidInput, match="7 runs, and 6 is the most"):
        map_key(PeriodFanOut(week, "week", "%Y-%m-%d", most=6), MOMENT)
    assert map_key(Scatter(("a", "b")), "x") == (("a", "x"), ("b", "x"))
    assert map_key(FanOut(table={"a": ("a",)}), "b") == ()


def test_an_hour_that_the_clock_leaves_out_is_the_next_one():
    new_york = Periods("day", "%Y-%m-%d", tz="America/New_York")
    members = list(keys_of(PeriodRollUp(new_york, "day"), "2024-03-10"))
    assert members[1:4] == [f"2024-03-10T0{hour}:00:00" for hour in (1, 3, 3)]


@pytest.mark.parametrize(
    ("written", "unit", "why"),
    [
        ("%Y-%m", "day", "does not say when a day begins: it needs %Y, %d, %m"),
        ("%Y", "quarter", "it needs %Y, {quarter}"),
        ("%A %Y-%m-%d", "day", "cannot be read back"),
        ("%Y-%m-%d-%d", "day", "is there twice"),
    ],
)
def test_keys_of_windows_are_to_be_read_back(written, unit, why):
    with pytest.raises(DefinitionError, match=why):
        PeriodRollUp(Periods(unit, written), unit)
