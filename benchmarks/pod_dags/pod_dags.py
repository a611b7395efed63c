"""DAGs of the scenario `pods`: one that says when its first line runs, and one without image."""

import os
import time

from pubsubflow import dag, task
from pubsubflow.kubernetes import Pod

LOG = os.environ.get("BENCH_LOG", "/dev/null")


@dag(executor=Pod(environment={"BENCH_LOG": LOG}))
def pod():
    """A task in a pod."""

    @task
    def first() -> None:
        with open(os.environ["BENCH_LOG"], "a") as file:  # noqa: PTH123 - it is the first line
            file.write(f"{time.time():.6f} pod start\n")

    first()


@dag(executor=Pod(image="nowhere/unknown:1"))
def unpulled():
    """A task whose image cannot be pulled."""

    @task
    def never() -> None: ...

    never()
