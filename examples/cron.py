"""Time and data together: a DAG by the clock, and one that runs by the clock if there is news."""

import shutil
from datetime import timedelta

from pubsubflow import Context, Cron, Dataset, dag, task

disk = Dataset("memory://examples/disk-use")


@dag(schedule=Cron("*/5 * * * *"))
def measure_disk() -> None:
    """Measure the disk every five minutes."""

    @task(outlets=[disk], retries=3, retry_delay=timedelta(seconds=2))
    def measure(ctx: Context) -> float:
        """Emit the share in use, in percent, under the time it was due rather than done."""
        use = shutil.disk_usage("/")
        percent = round(100 * use.used / use.total, 1)
        due = ctx.run.logical_time
        ctx.emit(disk, extra={"percent": percent, "due": due.isoformat() if due else None})
        return percent

    measure()


@dag(schedule=Cron("0 7 * * mon-fri", tz="Europe/Warsaw") & disk)
def morning_report() -> None:
    """Sum up at seven on weekdays, Warsaw time, what came in since the last report."""

    @task
    async def summarise(ctx: Context) -> dict[str, float]:
        """Look at every event that this run consumed."""
        percents = [event.extra["percent"] for event in ctx.events[disk]]
        return {"readings": len(percents), "highest": max(percents), "latest": percents[-1]}

    summarise()
