"""The computations of the demo's tasks: check a file, load it into SQLite, aggregate delays.

Nothing here knows about DAGs: each function takes paths and plain values. Each writes in one
transaction or one rename and is idempotent, so its task is safe to retry.
"""

import csv
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

COLUMNS = (
    "airport",
    "hour",
    "temp_f",
    "wind_mph",
    "precip_in",
    "visib_mi",
    "scheduled",
    "cancelled",
    "late",
    "delay_min",
)

RANGES = {
    "temp_f": (-60.0, 130.0),
    "wind_mph": (0.0, 150.0),
    "precip_in": (0.0, 20.0),
    "visib_mi": (0.0, 10.0),
}
"""The plausible range of each instrument: Fahrenheit, miles an hour, inches, miles."""

WEATHER = ("low visibility", "rain", "wind", "fair")
"""The kinds of weather, worst first: an hour counts under the first one that fits it."""

Row = dict[str, Any]
"""A row of results: names to strings, numbers and further rows."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS airport_hours (
    airport TEXT, hour TEXT, temp_f REAL, wind_mph REAL, precip_in REAL, visib_mi REAL,
    scheduled INTEGER, cancelled INTEGER, late INTEGER, delay_min INTEGER,
    PRIMARY KEY (airport, hour)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejected (
    source TEXT, reason TEXT, rows INTEGER, PRIMARY KEY (source, reason)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS monthly_delays (
    month TEXT, airport TEXT, hours INTEGER, scheduled INTEGER, cancelled INTEGER, late INTEGER,
    delay_min INTEGER, PRIMARY KEY (month, airport)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS weather_delays (
    weather TEXT PRIMARY KEY, hours INTEGER, scheduled INTEGER, cancelled INTEGER, late INTEGER,
    delay_min INTEGER
) WITHOUT ROWID;
"""

_LOAD_HOURS = """
INSERT OR REPLACE INTO airport_hours
VALUES (:airport, :hour, :temp_f, :wind_mph, :precip_in, :visib_mi,
        :scheduled, :cancelled, :late, :delay_min)
"""

_MONTH = """
SELECT substr(hour, 1, 7) AS month, airport, count(*) AS hours, sum(scheduled) AS scheduled,
       sum(cancelled) AS cancelled, sum(late) AS late, sum(delay_min) AS delay_min
FROM airport_hours
WHERE scheduled > 0 AND hour >= :month || '-01' AND hour < :month || '-99'
GROUP BY airport ORDER BY airport
"""

_WEATHER = """
INSERT INTO weather_delays
SELECT CASE WHEN visib_mi < 3 THEN 'low visibility'
            WHEN precip_in > 0 THEN 'rain'
            WHEN wind_mph >= 20 THEN 'wind'
            ELSE 'fair' END AS weather,
       count(*), sum(scheduled), sum(cancelled), sum(late), sum(delay_min)
FROM airport_hours WHERE scheduled > 0 GROUP BY weather
"""

_TOTAL = """
SELECT sum(hours) AS hours, sum(scheduled) AS scheduled, sum(cancelled) AS cancelled,
       sum(late) AS late, sum(delay_min) AS delay_min FROM monthly_delays
"""


def check_file(source: Path, accepted: Path) -> Row:
    """Copy the good rows of `source` to `accepted`; count the others by defect.

    Returns:
        `{"accepted": rows, "rejected": {reason: rows}}`.

    Raises:
        ValueError: The file has other columns, or not one good row.
    """
    partial = accepted.with_suffix(".partial")
    seen: set[tuple[str, str]] = set()
    rejected: Counter[str] = Counter()
    with source.open(newline="") as lines, partial.open("w", newline="") as sink:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{source}: expected the columns {','.join(COLUMNS)}")
        writer = csv.DictWriter(sink, COLUMNS)
        writer.writeheader()
        for row in reader:
            reason = defect_of(row, seen)
            if reason:
                rejected[reason] += 1
            else:
                seen.add((row["airport"], row["hour"]))
                writer.writerow(row)
    if not seen:
        raise ValueError(f"{source}: no row is usable: {dict(rejected)}")
    # Renamed at the end: a retry after a crash finds the whole file or none.
    partial.replace(accepted)
    return {"accepted": len(seen), "rejected": dict(sorted(rejected.items()))}


def defect_of(row: Mapping[str, str], seen: set[tuple[str, str]]) -> str | None:
    """Return the defect of a row, given the (airport, hour) pairs before it; None without one."""
    # DictReader files surplus values under the key None, and gives None for missing ones.
    if None in row or None in row.values():
        return "wrong number of columns"
    for name in COLUMNS:
        if not row[name]:
            return f"{name} missing"
    try:
        outside = [
            name for name, (low, high) in RANGES.items() if not low <= float(row[name]) <= high
        ]
        scheduled, cancelled, late = (int(row[name]) for name in ("scheduled", "cancelled", "late"))
        int(row["delay_min"])
    except ValueError:
        return "not a number"
    if outside:
        return f"{outside[0]} impossible"
    if min(cancelled, late) < 0 or cancelled + late > scheduled:
        return "more flights than scheduled"
    return "hour repeated" if (row["airport"], row["hour"]) in seen else None


def load_file(accepted: Path, database: Path, source: str, rejected: Mapping[str, int]) -> int:
    """Load checked rows into `airport_hours`; return how many rows the table holds then.

    A row replaces the one of the same airport and hour, so the same file twice changes nothing.
    """
    with accepted.open(newline="") as lines, _transaction(database) as connection:
        connection.executemany(_LOAD_HOURS, csv.DictReader(lines))
        connection.execute("DELETE FROM rejected WHERE source = ?", [source])
        connection.executemany(
            "INSERT INTO rejected VALUES (?, ?, ?)",
            [(source, reason, rows) for reason, rows in rejected.items()],
        )
        return _count(connection)


def months(database: Path) -> list[str]:
    """List the months that have departures, as YYYY-MM."""
    query = (
        "SELECT DISTINCT substr(hour, 1, 7) AS month FROM airport_hours "
        "WHERE scheduled > 0 ORDER BY month"
    )
    with _transaction(database) as connection:
        return [row["month"] for row in connection.execute(query)]


def measure_month(database: Path, month: str) -> list[Row]:
    """Sum up a month's departures: one row per airport."""
    with _transaction(database) as connection:
        return [dict(row) for row in connection.execute(_MONTH, {"month": month})]


def store_months(database: Path, rows: Iterable[Row]) -> int:
    """Replace `monthly_delays` by these rows; return how many there are."""
    with _transaction(database) as connection:
        connection.execute("DELETE FROM monthly_delays")
        return connection.executemany(
            "INSERT INTO monthly_delays VALUES "
            "(:month, :airport, :hours, :scheduled, :cancelled, :late, :delay_min)",
            rows,
        ).rowcount


def store_weather(database: Path) -> int:
    """Replace `weather_delays` by the departures in each kind of weather; return its row count."""
    with _transaction(database) as connection:
        connection.execute("DELETE FROM weather_delays")
        return connection.execute(_WEATHER).rowcount


def summarise(database: Path) -> Row:
    """Return the report: the numbers of the tables of both branches.

    Shares are percentages: `late_percent` of the flights that left, `cancelled_percent` of those
    scheduled. `mean_delay` is in minutes over the flights that left, early ones counting below
    zero.
    """
    with _transaction(database) as connection:
        total = dict(connection.execute(_TOTAL).fetchone())
        monthly = [dict(row) for row in connection.execute("SELECT * FROM monthly_delays")]
        weather = {
            row["weather"]: row for row in connection.execute("SELECT * FROM weather_delays")
        }
        rejected = connection.execute(
            "SELECT reason, sum(rows) AS rows FROM rejected GROUP BY reason ORDER BY reason"
        )
        return {
            "accepted": _count(connection),
            "rejected": {row["reason"]: row["rows"] for row in rejected},
            "departures": with_shares(total),
            "months": [with_shares(row) for row in monthly],
            "weather": [with_shares(dict(weather[kind])) for kind in WEATHER if kind in weather],
        }


def with_shares(counts: Row) -> Row:
    """Add shares in percent and the mean delay in minutes to a row of counts."""
    flown = counts["scheduled"] - counts["cancelled"]
    return counts | {
        "late_percent": round(100 * counts["late"] / flown, 2) if flown else 0.0,
        "cancelled_percent": round(100 * counts["cancelled"] / counts["scheduled"], 2),
        "mean_delay": round(counts["delay_min"] / flown, 2) if flown else 0.0,
    }


def _count(connection: sqlite3.Connection) -> int:
    (rows,) = connection.execute("SELECT count(*) FROM airport_hours").fetchone()
    return int(rows)


@contextmanager
def _transaction(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the database with its tables in place; commit at the end, or roll back an error."""
    # sqlite3's own context manager ends the transaction but does not close the connection. The
    # timeout covers months that are measured by tasks side by side.
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.row_factory = sqlite3.Row
        connection.executescript(_SCHEMA)
        yield connection
