"""Time and data: one DAG by the clock, and one that its dataset wakes.

`measure_disk` runs hourly on weekdays, from seven to seven in Warsaw, summer and winter time alike.
`disk_alert` knows nothing about the clock: it looks at each reading, whoever made it.
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
        """Emit the share in use, in percent, with the time at which the reading was due."""
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
        """Stop here, with everything after it skipped, unless the disk is nearly full."""
        percent: float = ctx.events[disk][-1].extra["percent"]
        return percent >= FULL_PERCENT

    @task
    async def warn(ctx: Context) -> None:
        """Say so in the log; an EmailOperator could stand here."""
        ctx.log.warning("disk.nearly_full", **ctx.events[disk][-1].extra)

    is_full() >> warn()
