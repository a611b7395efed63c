"""Runs DAGs in the calling process: `DAG.test` and `DAG.atest`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Unpack

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.from_thread import BlockingPortal
from msgspec import Struct

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.runtime.inprocess import InProcessKeywords, RunResult
from pubsubflow.errors import InvalidInput
from pubsubflow.testing.attempts import Attempts, Ended, RunSync
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.driver import Driver
from pubsubflow.testing.output import Capture
from pubsubflow.testing.run_inputs import Given, prepare

Outcome = RunResult | BaseException
_LOOK_SECONDS = 0.2


def run(
    dag: DAG,
    params: Mapping[str, Any] | Struct | None = None,
    events: Iterable[Any] | None = None,
    select: str | Iterable[str] | None = None,
    **more: Unpack[InProcessKeywords],
) -> RunResult:
    """Run a DAG; see `DAG.test`."""
    _refuse_on_a_loop(dag)
    given = _prepare(dag, params, events, select, more)
    with anyio.from_thread.start_blocking_portal() as portal:
        here = _CallingThread(portal)
        drive = partial(_drive, given, here.run, raise_on_error=more.get("raise_on_error", False))
        outcome = here.serve(portal.start_task_soon(_returned, drive))
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def arun(
    dag: DAG,
    params: Mapping[str, Any] | Struct | None = None,
    events: Iterable[Any] | None = None,
    select: str | Iterable[str] | None = None,
    **more: Unpack[InProcessKeywords],
) -> RunResult:
    """Run a DAG; see `DAG.atest`."""
    given = _prepare(dag, params, events, select, more)
    return await _drive(
        given, anyio.to_thread.run_sync, raise_on_error=more.get("raise_on_error", False)
    )


def _prepare(dag: DAG, params: Any, events: Any, select: Any, more: InProcessKeywords) -> Given:
    return prepare(
        dag,
        params,
        events,
        select,
        results=more.get("results"),
        connections=more.get("connections"),
        logical_time=more.get("logical_time"),
        now=more.get("now") or datetime.now(UTC),
    )


async def _drive(given: Given, run_sync: RunSync, *, raise_on_error: bool) -> RunResult:
    capture = Capture()
    clock = VirtualClock(given.now)
    driver = Driver(given, Attempts(given, capture, run_sync), clock, raise_on_error=raise_on_error)
    with capture.installed():
        return await driver.run()


async def _returned(drive: Callable[[], Awaitable[RunResult]]) -> Outcome:
    """Return what is raised as well: a loop in another thread would die of an interrupt."""
    try:
        return await drive()
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as error:  # noqa: BLE001 - raised by whoever called
        return error


class _CallingThread:
    """Runs the plain tasks in the thread that waits for the run's end.

    There they may start event loops of their own, set signal handlers and be debugged, as in the
    process that a task has to itself.
    """

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run(self, function: Callable[[], Ended]) -> Ended:
        """Return what the function returned there."""
        done = anyio.Event()
        found: list[Ended] = []

        def work() -> None:
            found.append(function())
            self._portal.call(done.set)

        self._work.put(work)
        await done.wait()
        return found[0]

    def serve(self, outcome: "Future[Outcome]") -> Outcome:
        """Do the work that comes until the run has an outcome, and return that."""
        outcome.add_done_callback(lambda _: self._work.put(None))
        while (work := self._next()) is not None:
            work()
        return outcome.result()

    def _next(self) -> Callable[[], None] | None:
        """Wait for what is next, and look up at times.

        A signal that arrives after the interpreter's last look at signals and before the wait
        in the operating system begins would not end an unbounded wait.
        """
        while True:
            with suppress(Empty):
                return self._work.get(timeout=_LOOK_SECONDS)


def _refuse_on_a_loop(dag: DAG) -> None:
    with suppress(RuntimeError):  # which says that no loop runs here
        anyio.get_current_task()
        raise InvalidInput(
            f"an event loop runs here; write `await {dag.dag_id}.atest(...)` in place of .test()"
        )
