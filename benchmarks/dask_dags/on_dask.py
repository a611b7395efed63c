"""The same tasks on a Dask cluster and here; they log their first moment in the file $BENCH_LOG."""

import os
import time

from pubsubflow import DAG, task

LOG = os.environ.get("BENCH_LOG", "/dev/null")
MANY = 200


def mark(name: str) -> None:
    """Append one line `moment name phase` to the log, in one write."""
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{time.time():.6f} {name} start\n".encode())
    os.close(descriptor)


def one(dag_id: str, kind: str):
    """Make a task that logs its first moment."""

    def body() -> None:
        mark(dag_id)

    async def body_async() -> None:
        mark(dag_id)

    return task(task_id="first")(body if kind == "sync" else body_async)()


@task
async def nothing(_: int) -> None:
    """Do nothing, on a loop."""


for place in ("local", "dask"):
    for each in ("sync", "async"):
        with DAG(f"{place}_{each}", executor=place):
            one(f"{place}_{each}", each)
    with DAG(f"{place}_many", executor=place):
        nothing.expand(_=list(range(MANY)))
