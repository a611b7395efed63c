"""Four DAGs on delays of flights from New York by month and weather, joined by datasets alone.

    landing ──▶ ingest ──▶ airport_hours ──┬──▶ monthly_delays ──┐
    (an HTTP event)                        └──▶ weather_delays ──┴──▶ report

No DAG names another one. Each names the dataset that it waits for and the one that it produces; a
fifth DAG with `schedule=hours` runs on the next file without a change in this one.
"""

from pathlib import Path
from typing import Any

from pubsubflow import Context, Dataset, dag, task
from pubsubflow.demo import flights, pages

landing = Dataset("file://demo/landing/nyc-hours")
hours = Dataset("sqlite://demo/airport_hours")
by_month = Dataset("sqlite://demo/monthly_delays")
by_weather = Dataset("sqlite://demo/weather_delays")
report_files = Dataset("file://demo/report")


@dag(schedule=landing, max_active_runs=1, tags=["demo"])
def ingest() -> None:
    """Check the file that an event on `landing` names, and load it into SQLite.

    The event's extra holds `path`, the file, and `work_dir`, an existing folder for everything
    that the demo writes.
    """

    @task
    def check(ctx: Context) -> dict[str, Any]:
        """Copy the good rows aside and count the bad ones by reason."""
        arrived = ctx.events[landing][-1].extra
        accepted = Path(arrived["work_dir"]) / "accepted.csv"
        quality = flights.check_file(Path(arrived["path"]), accepted)
        ctx.log.info("file.checked", path=arrived["path"], **quality)
        return {**quality, "path": str(accepted), "source": Path(arrived["path"]).name}

    @task(outlets=[hours], retries=2)
    def load(checked: dict[str, Any], ctx: Context) -> int:
        """Write the good rows to the database; a retry replaces the rows that it wrote before."""
        accepted = Path(checked["path"])
        database = accepted.with_name("flights.db")
        rows = flights.load_file(accepted, database, checked["source"], checked["rejected"])
        rejected = sum(checked["rejected"].values())
        ctx.emit(hours, extra={"database": str(database), "rows": rows, "rejected": rejected})
        return rows

    load(check())


# One run at a time: each replaces its table as a whole, and an older run must not do so last.
@dag(schedule=hours, max_active_runs=1, tags=["demo"])
def monthly_delays() -> None:
    """Sum up delays by month: one mapped task per month, then one that gathers their results."""

    @task
    def months(ctx: Context) -> list[str]:
        """List the months to measure; their number is the number of mapped tasks."""
        return flights.months(database_of(ctx, hours))

    @task
    def measure(month: str, ctx: Context) -> list[dict[str, Any]]:
        """Sum up one month, a row per airport."""
        return flights.measure_month(database_of(ctx, hours), month)

    @task(outlets=[by_month], retries=2)
    def store(measured: list[list[dict[str, Any]]], ctx: Context) -> int:
        """Write all months in one transaction: readers see the old table or the new one."""
        database = database_of(ctx, hours)
        rows = flights.store_months(database, [row for month in measured for row in month])
        ctx.emit(by_month, extra={"database": str(database), "rows": rows})
        return rows

    store(measure.expand(month=months()))


@dag(schedule=hours, max_active_runs=1, tags=["demo"])
def weather_delays() -> None:
    """Sum up delays by the weather in the hour of departure."""

    @task(outlets=[by_weather], retries=2)
    def store(ctx: Context) -> int:
        """Aggregate in SQL, in one statement."""
        database = database_of(ctx, hours)
        rows = flights.store_weather(database)
        ctx.emit(by_weather, extra={"database": str(database), "rows": rows})
        return rows

    store()


@dag(schedule=by_month & by_weather, max_active_runs=1, tags=["demo"])
def report() -> None:
    """Write the report when both tables have been updated."""

    @task
    def summarise(ctx: Context) -> dict[str, Any]:
        """Summarise both tables."""
        return flights.summarise(database_of(ctx, by_month))

    @task(outlets=[report_files])
    def publish(summary: dict[str, Any], ctx: Context) -> dict[str, Any]:
        """Write report.json, report.md and report.svg beside the database."""
        written = pages.write(database_of(ctx, by_month).parent, summary)
        ctx.emit(report_files, extra={"files": [str(path) for path in written]})
        return summary

    publish(summarise())


def database_of(ctx: Context, dataset: Dataset) -> Path:
    """Return the database that the newest event of a dataset names."""
    return Path(ctx.events[dataset][-1].extra["database"])
