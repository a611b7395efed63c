"""The DAGs of the fault matrix: every kind of task, chains, joins, fan-out, retries, output.

Values are small sums, so that a wrong, lost or doubled one shows in the results.
"""

import asyncio
import select
import uuid
from datetime import timedelta

from execution_notes import note

from pubsubflow import Context, Dataset, dag, task

WORK_SECONDS = 0.002

row_in, row_out = Dataset("fault://row/in"), Dataset("fault://row/out")
line_in, line_out = Dataset("fault://line/in"), Dataset("fault://line/out")
split_in, left, right = (Dataset(f"fault://split/{name}") for name in ("in", "left", "right"))
left_done, right_done = Dataset("fault://left/done"), Dataset("fault://right/done")
spread_in, shaky_in = Dataset("fault://spread/in"), Dataset("fault://shaky/in")
shaky_out = Dataset("fault://shaky/out")


def pause(seconds: float) -> None:
    """Sleep; libfaketime, of rounds with a wrong clock, breaks `time.sleep`."""
    select.select((), (), (), seconds)


def work(ctx: Context) -> None:
    """Take a moment, so that a fault may hit in the middle."""
    pause(WORK_SECONDS / 2)
    note(ctx)
    pause(WORK_SECONDS / 2)


async def work_beside(ctx: Context) -> None:
    """Do the same on a loop."""
    await asyncio.sleep(WORK_SECONDS / 2)
    note(ctx)
    await asyncio.sleep(WORK_SECONDS / 2)


def begin() -> str:
    """Print so much that it is published at once; return what marks this execution."""
    execution = uuid.uuid4().hex
    print("begins", execution, "." * 33_000)
    return execution


def number(ctx: Context, dataset: Dataset) -> int:
    """Add up what the consumed events of a dataset carry."""
    return sum(event.extra["n"] for event in ctx.events[dataset])


@dag(schedule=row_in)
def row() -> None:
    """Run four async tasks, one after the other."""

    @task
    async def first(ctx: Context) -> int:
        execution = begin()
        await work_beside(ctx)
        print("ends", execution)
        return number(ctx, row_in) + 1

    @task
    async def second(value: int, ctx: Context) -> int:
        await work_beside(ctx)
        print("the second has", value)
        return value * 2

    @task
    async def third(value: int, ctx: Context) -> int:
        await work_beside(ctx)
        return value + 3

    @task(outlets=[row_out])
    async def fourth(value: int, ctx: Context) -> int:
        await work_beside(ctx)
        ctx.emit(row_out, extra={"n": value})
        return value

    fourth(third(second(first())))


@dag(schedule=line_in)
def line() -> None:
    """Run four sync tasks, one after the other."""

    @task
    def first(ctx: Context) -> int:
        execution = begin()
        work(ctx)
        print("ends", execution)
        return number(ctx, line_in) * 3

    @task
    def second(value: int, ctx: Context) -> int:
        work(ctx)
        print("the second has", value)
        return value + 1

    @task
    def third(value: int, ctx: Context) -> int:
        work(ctx)
        return value * 2

    @task(outlets=[line_out])
    def fourth(value: int, ctx: Context) -> int:
        work(ctx)
        ctx.emit(line_out, extra={"n": value})
        return value

    fourth(third(second(first())))


@dag(schedule=split_in)
def split() -> None:
    """Fan out: one task, two datasets."""

    @task(outlets=[left, right])
    async def cut(ctx: Context) -> int:
        await work_beside(ctx)
        value = number(ctx, split_in)
        ctx.emit(left, extra={"n": value})
        ctx.emit(right, extra={"n": value * 10})
        return value

    cut()


@dag(schedule=left)
def left_leg() -> None:
    """Take the left side on."""

    @task(outlets=[left_done])
    async def pass_on(ctx: Context) -> int:
        await work_beside(ctx)
        ctx.emit(left_done, extra={"n": number(ctx, left) + 1})
        return number(ctx, left) + 1

    pass_on()


@dag(schedule=right)
def right_leg() -> None:
    """Take the right side on, in a process."""

    @task(outlets=[right_done])
    def pass_on(ctx: Context) -> int:
        work(ctx)
        ctx.emit(right_done, extra={"n": number(ctx, right) + 2})
        return number(ctx, right) + 2

    pass_on()


@dag(schedule=left_done & right_done)
def meet() -> None:
    """Join both sides, and run a diamond."""

    @task
    async def begin(ctx: Context) -> list[int]:
        await work_beside(ctx)
        return [number(ctx, left_done), number(ctx, right_done)]

    @task
    async def upper(sums: list[int], ctx: Context) -> int:
        await work_beside(ctx)
        return sums[0] + 1

    @task
    def lower(sums: list[int], ctx: Context) -> int:
        work(ctx)
        return sums[1] * 2

    @task
    async def end(one: int, other: int, ctx: Context) -> int:
        await work_beside(ctx)
        return one + other

    sums = begin()
    end(upper(sums), lower(sums))


@dag(schedule=spread_in)
def spread() -> None:
    """Map over a list that a task returns, and gather."""

    @task
    async def parts(ctx: Context) -> list[int]:
        await work_beside(ctx)
        value = number(ctx, spread_in)
        return [value + place for place in range(2 + value % 4)]

    @task
    async def square(part: int, ctx: Context) -> int:
        await work_beside(ctx)
        return part * part

    @task
    def gather(squares: list[int], ctx: Context) -> int:
        work(ctx)
        return sum(squares)

    gather(square.expand(part=parts()))


@dag(schedule=shaky_in)
def shaky() -> None:
    """Fail at first, every other time, and go on after the retry."""

    @task(retries=3, retry_delay=timedelta(milliseconds=50))
    async def stumble(ctx: Context) -> int:
        await work_beside(ctx)
        value = number(ctx, shaky_in)
        if ctx.attempt == 1 and value % 2:
            raise RuntimeError("the first attempt fails")
        return value

    @task(outlets=[shaky_out])
    async def recover(value: int, ctx: Context) -> int:
        await work_beside(ctx)
        ctx.emit(shaky_out, extra={"n": value - 1})
        return value - 1

    recover(stumble())


@dag(schedule=(row_out & line_out) | shaky_out)
def watch() -> None:
    """Two legs: neither swallows the other's progress."""

    @task
    async def add_up(ctx: Context) -> list[int]:
        await work_beside(ctx)
        return [number(ctx, dataset) for dataset in (row_out, line_out, shaky_out)]

    add_up()
