"""DAGs of the scenario `airflow`, which Airflow itself imports."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import Asset, dag, task

LOG = os.environ.get("BENCH_LOG", "/dev/null")
# Its home bears the name of a bundle.
PREFIX = Path(os.environ["AIRFLOW_HOME"]).name + "_"
WAITS = int(os.environ.get("BENCH_WAITS", "1000"))


@dag(dag_id=f"{PREFIX}attempts", schedule=None)
def attempts():
    """One task that does nothing."""

    @task
    def nothing():
        return 1

    nothing()


@dag(dag_id=f"{PREFIX}by_event", schedule=Asset(f"bench://{PREFIX}orders"))
def by_event():
    """A task that says when it began."""

    @task
    def first_line():
        moment = time.time()
        with Path(LOG).open("a") as log:
            log.write(f"{moment} {PREFIX}by_event first\n")

    first_line()


@dag(dag_id=f"{PREFIX}clocks", schedule=None, max_active_tasks=WAITS)
def clocks():
    """Many deferred tasks, each of which waits for a moment by Airflow's own trigger."""
    moment = datetime.now(UTC) + timedelta(hours=3)
    # On a busy machine a daemon that has so many tasks at once may not answer one of them in time.
    waits = DateTimeSensorAsync.partial(task_id="wait", retries=9, retry_delay=timedelta(seconds=5))
    waits.expand(target_time=[moment.isoformat()] * WAITS)


attempts()
by_event()
clocks()
