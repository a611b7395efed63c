"""DAGs of the scenarios; their tasks log wall-clock moments in the file $BENCH_LOG."""

import os
import time

from pubsubflow import DAG, Dataset, task, task_group

LOG = os.environ.get("BENCH_LOG", "/dev/null")


def mark(name: str, phase: str, moment: float | None = None) -> None:
    """Append one line `moment name phase` to the log, in one write."""
    line = f"{time.time() if moment is None else moment:.6f} {name} {phase}\n"
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def fib(number: int) -> int:
    """Return a Fibonacci number, slowly."""
    return number if number < 2 else fib(number - 1) + fib(number - 2)


def marking(
    dag_id: str, name: str, outlets: list[Dataset] | None = None, number: int | None = None
):
    """Make a sync task that logs its first and last moment."""

    @task(task_id=name, outlets=outlets or [])
    def body() -> None:
        mark(f"{dag_id}.{name}", "start")
        if number is not None:
            fib(number)
        mark(f"{dag_id}.{name}", "end")

    return body()


def marking_async(dag_id: str, name: str, outlets: list[Dataset] | None = None):
    """Make an async task that logs its first and last moment."""

    @task(task_id=name, outlets=outlets or [])
    async def body() -> None:
        mark(f"{dag_id}.{name}", "start")
        mark(f"{dag_id}.{name}", "end")

    return body()


@task
def nothing() -> None:
    """Do nothing, in a process."""


@task
async def nothing_async() -> None:
    """Do nothing, on a loop."""


def row(dag_id: str, count: int, number: int | None = None) -> None:
    """Declare tasks one after the other."""
    with DAG(dag_id, max_active_runs=128):
        before = None
        for index in range(count):
            current = marking(dag_id, f"t{index:02d}", number=number)
            if before is not None:
                before >> current
            before = current


for kind, make in (("sync", marking), ("async", marking_async)):
    pair = Dataset(f"bench://pair/{kind}")
    with DAG(f"pair_{kind}_up", max_active_runs=128):
        make(f"pair_{kind}_up", "t", [pair])
    with DAG(f"pair_{kind}_down", schedule=pair, max_active_runs=128):
        make(f"pair_{kind}_down", "t")

    outside = Dataset(f"bench://outside/{kind}")
    with DAG(f"outside_{kind}", schedule=outside, max_active_runs=128):
        make(f"outside_{kind}", "t")

    for index in range(10):
        schedule = None if index == 0 else Dataset(f"bench://chain/{kind}/{index}")
        with DAG(f"chain_{kind}_{index}", schedule=schedule, max_active_runs=128):
            make(f"chain_{kind}_{index}", "t", [Dataset(f"bench://chain/{kind}/{index + 1}")])

fan = Dataset("bench://fan")
for index in range(100):
    with DAG(f"fan_{index:03d}", schedule=fan):
        marking(f"fan_{index:03d}", "t")

row("row_10", 10)
row("row_40", 40)
row("fib_33", 10, 33)

with DAG("wide_100", max_active_runs=128):
    for index in range(100):
        marking("wide_100", f"t{index:03d}")

for kind, body in (("sync", nothing), ("async", nothing_async)):
    with DAG(f"load_{kind}", schedule=Dataset(f"bench://load/{kind}"), max_active_runs=1000):
        for index in range(10):
            body.override(task_id=f"t{index}")() if hasattr(body, "override") else body()

with DAG("load_rows", schedule=Dataset("bench://load/rows"), max_active_runs=1000):
    before = None
    for _ in range(10):
        current = nothing_async()
        if before is not None:
            before >> current
        before = current

with DAG("unsubscribed"):
    nothing()


@task
async def many(size: int = 50_000) -> list[int]:
    """Return what a task, or a group, is mapped over."""
    return list(range(size))


@task
async def element(number: int) -> None:
    """Do nothing for one element."""
    del number


with DAG("mapped_many"):
    element.expand(number=many())

for size in (1_000, 10_000):
    with DAG(f"grouped_{size}"):

        @task_group
        def through(number: int) -> None:
            """Two tasks, one after the other, for each element."""
            element.override(task_id="first")(number) >> element.override(task_id="then")(number)

        through.expand(number=many.override(task_id="source")(size))

with DAG("mapped_neighbour"):
    nothing_async()


with DAG("called_async", result="nothing_async", max_active_runs=1000):
    nothing_async()

with DAG("called_sync", result="nothing", max_active_runs=1000):
    nothing()
