import csv
from concurrent.futures import ThreadPoolExecutor

import pytest

from pubsubflow.demo import flights, scenario
from pubsubflow.demo.hourly_data import hourly_rows
from support.expected_report import expected_report

GOOD = {
    "airport": "EWR",
    "hour": "2013-01-01T05",
    "temp_f": "39.02",
    "wind_mph": "10.36",
    "precip_in": "0",
    "visib_mi": "10",
    "scheduled": "6",
    "cancelled": "1",
    "late": "2",
    "delay_min": "30",
}


def write(path, *rows):
    with path.open("w", newline="") as sink:
        writer = csv.DictWriter(sink, flights.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_report_equals_the_independent_computation(database):
    assert flights.summarise(database) == expected_report(scenario.data_file())


def test_numbers_of_the_shipped_file(database):
    numbers = flights.summarise(database)
    assert numbers["accepted"] == 26_106
    assert numbers["rejected"] == {
        "hour repeated": 3,
        "temp_f missing": 1,
        "wind_mph impossible": 1,
        "wind_mph missing": 4,
    }
    assert numbers["departures"]["scheduled"] == 335_125
    assert {row["weather"]: row["late_percent"] for row in numbers["weather"]} == {
        "low visibility": 35.02,
        "rain": 39.66,
        "wind": 24.66,
        "fair": 20.53,
    }


def test_loading_the_same_file_again_changes_nothing(database, tmp_path):
    before = flights.summarise(database)
    rows = flights.load_file(
        tmp_path / "accepted.csv", database, "nyc_hours.csv", before["rejected"]
    )
    assert rows == 26_106
    assert flights.summarise(database) == before


def test_measuring_again_changes_nothing(database):
    before = flights.summarise(database)
    flights.store_weather(database)
    flights.store_months(
        database,
        [
            row
            for month in flights.months(database)
            for row in flights.measure_month(database, month)
        ],
    )
    assert flights.summarise(database) == before


def test_a_corrected_row_replaces_its_like(tmp_path):
    database = tmp_path / "flights.db"
    for late in ("2", "3"):
        source = write(tmp_path / "in.csv", GOOD | {"late": late})
        flights.check_file(source, tmp_path / "accepted.csv")
        assert flights.load_file(tmp_path / "accepted.csv", database, "in.csv", {}) == 1
    (row,) = flights.measure_month(database, "2013-01")
    assert row["late"] == 3


def test_a_failed_load_leaves_the_table_as_it_was(database, tmp_path):
    before = flights.summarise(database)
    broken = tmp_path / "accepted.csv"
    broken.write_text("airport,hour\nEWR,2013-01-01T05\n")
    with pytest.raises(Exception, match="temp_f"):
        flights.load_file(broken, database, "broken.csv", {})
    assert flights.summarise(database) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"temp_f": ""}, "temp_f missing"),
        ({"wind_mph": "1048.36"}, "wind_mph impossible"),
        ({"visib_mi": "nan"}, "visib_mi impossible"),
        ({"precip_in": "T"}, "not a number"),
        ({"scheduled": "6.5"}, "not a number"),
        ({"cancelled": "5", "late": "2"}, "more flights than scheduled"),
        ({"late": "-1"}, "more flights than scheduled"),
        ({"delay_min": None}, "wrong number of columns"),
        ({None: ["x"]}, "wrong number of columns"),
    ],
)
def test_flaw_names_what_is_wrong(change, reason):
    assert flights.defect_of(GOOD | change, set()) == reason


def test_an_hour_counts_once():
    assert flights.defect_of(GOOD, {("EWR", "2013-01-01T05")}) == "hour repeated"
    assert flights.defect_of(GOOD, {("JFK", "2013-01-01T05")}) is None


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns airport,hour"):
        flights.check_file(tmp_path / "other.csv", tmp_path / "accepted.csv")


def test_a_file_without_a_good_row_is_refused(tmp_path):
    source = write(tmp_path / "in.csv", GOOD | {"temp_f": ""})
    with pytest.raises(ValueError, match="no row is usable"):
        flights.check_file(source, tmp_path / "accepted.csv")
    assert not (tmp_path / "accepted.csv").exists()


def test_months_do_not_run_into_each_other(tmp_path):
    stamps = ("2013-01-31T23", "2013-02-01T00", "2013-02-28T23", "2013-03-01T00")
    source = write(tmp_path / "in.csv", *(GOOD | {"hour": hour} for hour in stamps))
    flights.check_file(source, tmp_path / "accepted.csv")
    flights.load_file(tmp_path / "accepted.csv", tmp_path / "db", "in.csv", {})
    assert flights.months(tmp_path / "db") == ["2013-01", "2013-02", "2013-03"]
    (february,) = flights.measure_month(tmp_path / "db", "2013-02")
    assert february["hours"] == 2


def test_cut_counts_an_hours_flights_beside_its_weather():
    place = {"origin": "EWR", "time_hour": "2013-01-01T10:00:00Z"}
    flown = [place | {"dep_delay": delay} for delay in ("-2", "14", "15", "NA")]
    weather = place | {"year": "2013", "month": "1", "day": "1", "hour": "5", "temp": "39.02"}
    weather |= {"wind_speed": "12.657979999999999", "precip": "0", "visib": "NA"}
    assert list(hourly_rows(flown, [weather])) == [
        ("EWR", "2013-01-01T05", "39.02", "12.66", "0", "", 4, 1, 1, 27)
    ]


def test_both_branches_may_work_on_one_database_at_once(database):
    before = flights.summarise(database)

    def by_month():
        for _ in range(5):
            rows = [
                row
                for month in flights.months(database)
                for row in flights.measure_month(database, month)
            ]
            flights.store_months(database, rows)

    def by_weather():
        for _ in range(5):
            flights.store_weather(database)

    with ThreadPoolExecutor() as threads:
        for branch in [threads.submit(work) for work in (by_month, by_weather, by_month)]:
            branch.result()
    assert flights.summarise(database) == before
