"""Procrastinate's jobs of the suite: `prepare`, `worker` or `client`."""

import asyncio
import os
import sys
from pathlib import Path

import procrastinate
from client_loop import serve
from task_marks import SLOW_SECONDS, body, mark

ADDRESS = os.environ["PEERS_ADDRESS"]
CONCURRENCY = int(os.environ["PEERS_CONCURRENCY"])
RETRY_STALLED = bool(os.environ["PEERS_RETRY_STALLED"])
STALLED_SECONDS = 10

worker_app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=ADDRESS))


@worker_app.task(name="one", pass_context=True)
async def one(context, key):
    """Mark itself."""
    body("one", [key], context.job.id)


@worker_app.task(name="slow", pass_context=True)
async def slow(context, key):
    """Take its time."""
    mark("slow", key, "start", context.job.id)
    await asyncio.sleep(SLOW_SECONDS)
    mark("slow", key, "end", context.job.id)


@worker_app.task(name="pair", pass_context=True)
async def pair(context, key):
    """Defer the job after it."""
    body("pair.up", [key], context.job.id)
    await pair_down.defer_async(key=key)


@worker_app.task(name="pair_down", pass_context=True)
async def pair_down(context, key):
    """Mark itself."""
    body("pair.down", [key], context.job.id)


@worker_app.task(name="chain", pass_context=True)
async def chain(context, key, index=0):
    """Defer the next job of ten."""
    body(f"chain.{index}", [key], context.job.id)
    if index < 9:
        await chain.defer_async(key=key, index=index + 1)


@worker_app.task(name="fan")
async def fan(key):
    """Defer ten jobs."""
    await fanned.batch_defer_async(*({"key": key, "index": index} for index in range(10)))


@worker_app.task(name="fanned", pass_context=True)
async def fanned(context, key, index):
    """Mark itself."""
    body(f"fan.{index}", [key], context.job.id)


@worker_app.task(name="ten")
async def ten(key):
    """Defer ten jobs, one after the other by their own hand."""
    await tenth.batch_defer_async(*({"key": key, "index": index} for index in range(10)))


@worker_app.task(name="tenth", pass_context=True)
async def tenth(context, key, index):
    """Mark itself."""
    body(f"ten.{index}", [key], context.job.id)


@worker_app.task(name="unheard", queue="unheard")
async def unheard():
    """Wait in a queue that no worker takes from."""


@worker_app.periodic(cron="* * * * * */10")
@worker_app.task(name="retry_stalled", queueing_lock="retry_stalled", queue="upkeep")
async def retry_stalled(timestamp):
    """Queue again what a dead worker has left, as its documentation advises."""
    del timestamp
    if RETRY_STALLED:
        stalled = await worker_app.job_manager.get_stalled_jobs(
            seconds_since_heartbeat=STALLED_SECONDS
        )
        for job in stalled:
            await worker_app.job_manager.retry_job(job)


def say_ready():
    """Make the file that the suite waits for."""
    Path(os.environ["PEERS_READY"]).touch()


async def prepare():
    """Make the tables."""
    async with worker_app.open_async():
        await worker_app.schema_manager.apply_schema_async()


async def work():
    """Take jobs until stopped."""
    async with worker_app.open_async():
        say_ready()
        await worker_app.run_worker_async(
            concurrency=CONCURRENCY, queues=["default", "upkeep"], delete_jobs="never"
        )


def client():
    """Defer jobs for the suite."""
    # An app that knows no tasks: those of the worker's are bound to its asynchronous connector.
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=ADDRESS))
    with app.open():

        def send(workload, keys):
            task = app.configure_task(workload)
            task.batch_defer(*({"key": key} for key in keys))

        posting = app.configure_task("unheard", queue="unheard")
        serve(send, posting.defer)


if __name__ == "__main__":
    {"prepare": lambda: asyncio.run(prepare()), "worker": lambda: asyncio.run(work())}.get(
        sys.argv[1], client
    )()
