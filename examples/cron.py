"""Time and data: one DAG with a cron schedule, and one with a dataset schedule.

`measure_disk` runs hourly on weekdays, from seven to seven in Warsaw, summer and winter time alike.
`disk_alert` knows nothing about the clock: it checks each reading, wherever it came from.
"""

import shutil
from datetime import timedelta

from pubsubflow import Context, Cron, Dataset, dag, task

FULL_PERCENT = 90.0

disk = Dataset("memory://examples/disk-use")


@dag(schedule=Cron("0 7-19 * * mon-fri", tz="Europe/Warsaw"), catchup=False)
def measure_disk() -> None:
    """Measure how full the disk is."""

    @task(outlets=[disk], retries=3, retry_delay=timedelta(seconds=2))
    def measure(ctx: Context) -> float:
        """Emit the used share of the disk in percent, with the logical time of the reading."""
        use = shutil.disk_usage("/")
        percent = round(100 * use.used / use.total, 1)
        due = ctx.run.logical_time
        ctx.emit(disk, extra={"percent": percent, "due": due.isoformat() if due else None})
        return percent

    measure()


@dag(schedule=disk)
def disk_alert() -> None:
    """Warn when the disk is nearly full."""

    @task.short_circuit
    async def is_full(ctx: Context) -> bool:
        """Skip everything downstream unless the disk is nearly full."""
        percent: float = ctx.events[disk][-1].extra["percent"]
        return percent >= FULL_PERCENT

    @task
    async def warn(ctx: Context) -> None:
        """Write a warning to the log; an EmailOperator could do so by mail."""
        ctx.log.warning("disk.nearly_full", **ctx.events[disk][-1].extra)

    is_full() >> warn()
