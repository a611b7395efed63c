"""Temporal's workflows of the suite: `worker` or `client`."""

import asyncio
import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

with workflow.unsafe.imports_passed_through():
    from client_loop import serve
    from task_marks import body

ADDRESS = os.environ["PEERS_ADDRESS"]
ACTIVITY_SECONDS = timedelta(seconds=float(os.environ["PEERS_ACTIVITY_SECONDS"]))
STICKY_SECONDS = timedelta(seconds=float(os.environ["PEERS_STICKY_SECONDS"]))
SANDBOX = bool(os.environ["PEERS_SANDBOX"])
RPC_SECONDS = timedelta(seconds=10)
QUEUE, UNHEARD = "peers", "unheard"
ACTIVITIES = 100  # at a time, which is the library's own default


@activity.defn
def step(label: str, key: str, run: str) -> None:
    """Do a task."""
    body(label, [key], run)


async def do(label, key):
    """Have a task done."""
    arguments = [label, key, workflow.info().run_id]
    await workflow.execute_activity(step, args=arguments, start_to_close_timeout=ACTIVITY_SECONDS)


async def follow(name, key, *arguments):
    """Start the workflow after this one, which outlives it."""
    await workflow.start_child_workflow(
        name,
        args=[key, *arguments],
        id="-".join(map(str, (name, key, *arguments))),
        parent_close_policy=workflow.ParentClosePolicy.ABANDON,
    )


@workflow.defn(name="one")
class One:
    """One task."""

    @workflow.run
    async def run(self, key: str) -> None:
        """Run."""
        await do("one", key)


@workflow.defn(name="slow")
class Slow:
    """One task that takes its time."""

    @workflow.run
    async def run(self, key: str) -> None:
        """Run."""
        await do("slow", key)


@workflow.defn(name="pair")
class Pair:
    """Start the workflow after it."""

    @workflow.run
    async def run(self, key: str) -> None:
        """Run."""
        await do("pair.up", key)
        await follow("pair_down", key)


@workflow.defn(name="pair_down")
class PairDown:
    """Follow."""

    @workflow.run
    async def run(self, key: str) -> None:
        """Run."""
        await do("pair.down", key)


@workflow.defn(name="chain")
class Chain:
    """Start the next workflow of ten."""

    @workflow.run
    async def run(self, key: str, index: int = 0) -> None:
        """Run."""
        await do(f"chain.{index}", key)
        if index < 9:
            await follow("chain", key, index + 1)


@workflow.defn(name="fan")
class Fan:
    """Start ten workflows."""

    @workflow.run
    async def run(self, key: str) -> None:
        """Run."""
        await asyncio.gather(*(follow("fanned", key, index) for index in range(10)))


@workflow.defn(name="fanned")
class Fanned:
    """One of ten."""

    @workflow.run
    async def run(self, key: str, index: int) -> None:
        """Run."""
        await do(f"fan.{index}", key)


@workflow.defn(name="ten")
class Ten:
    """Ten tasks side by side."""

    @workflow.run
    async def run(self, key: str) -> None:
        """Run."""
        await asyncio.gather(*(do(f"ten.{index}", key) for index in range(10)))


async def connect():
    """Connect, once the server, which starts beside, answers."""
    while True:
        try:
            return await Client.connect(ADDRESS)
        except RuntimeError:
            await asyncio.sleep(0.1)


def say_ready():
    """Make the file that the suite waits for."""
    Path(os.environ["PEERS_READY"]).touch()


async def work():
    """Take workflows and tasks until stopped."""
    with ThreadPoolExecutor(ACTIVITIES) as threads:
        worker = Worker(
            await connect(),
            task_queue=QUEUE,
            workflows=[One, Slow, Pair, PairDown, Chain, Fan, Fanned, Ten],
            activities=[step],
            activity_executor=threads,
            max_concurrent_activities=ACTIVITIES,
            sticky_queue_schedule_to_start_timeout=STICKY_SECONDS,
            workflow_runner=SandboxedWorkflowRunner() if SANDBOX else UnsandboxedWorkflowRunner(),
        )
        async with worker:
            say_ready()
            await asyncio.Event().wait()


def client():
    """Start workflows for the suite, whose threads share one event loop."""
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(loop.run_forever)

        def wait(coroutine):
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        made = wait(connect())

        async def start(workload, key):
            # It is there already if the answer of an earlier try was lost.
            with contextlib.suppress(WorkflowAlreadyStartedError):
                await made.start_workflow(
                    workload,
                    key,
                    id=f"{workload}-{key}",
                    task_queue=QUEUE,
                    rpc_timeout=RPC_SECONDS,
                )

        async def start_all(workload, keys):
            await asyncio.gather(*(start(workload, key) for key in keys))

        async def post():
            await made.start_workflow("one", "-", id=os.urandom(16).hex(), task_queue=UNHEARD)

        serve(lambda workload, keys: wait(start_all(workload, keys)), lambda: wait(post()))
        loop.call_soon_threadsafe(loop.stop)


if __name__ == "__main__":
    client() if sys.argv[1] == "client" else asyncio.run(work())
