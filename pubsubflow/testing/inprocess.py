"""In-process runs of DAGs: the implementation of `DAG.test` and `DAG.atest`."""

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
from msgspec.structs import replace

from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.runtime.inprocess import InProcessKeywords, RunResult
from pubsubflow.errors import InvalidInput
from pubsubflow.testing.attempts import AttemptRunner, RunSync
from pubsubflow.testing.callbacks import call_callbacks
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.driver import Driver
from pubsubflow.testing.output import Capture
from pubsubflow.testing.run_inputs import RunInputs, prepare_run

Outcome = RunResult | BaseException
_POLL_SECONDS = 0.2


def run(
    dag: DAG,
    params: Mapping[str, Any] | Struct | None = None,
    events: Iterable[Any] | None = None,
    select: str | Iterable[str] | None = None,
    **more: Unpack[InProcessKeywords],
) -> RunResult:
    """Run a DAG; see `DAG.test`."""
    _refuse_on_a_loop(dag)
    inputs = _prepare(dag, params, events, select, more)
    with anyio.from_thread.start_blocking_portal() as portal:
        here = _CallingThread(portal)
        drive = partial(_drive, dag, inputs, here.run, more)
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
    inputs = _prepare(dag, params, events, select, more)
    return await _drive(dag, inputs, anyio.to_thread.run_sync, more)


def _prepare(dag: DAG, params: Any, events: Any, select: Any, more: InProcessKeywords) -> RunInputs:
    return prepare_run(
        dag,
        params,
        events,
        select,
        results=more.get("results"),
        connections=more.get("connections"),
        variables=more.get("variables"),
        state=more.get("state"),
        answers=more.get("answers"),
        logical_time=more.get("logical_time"),
        now=more.get("now") or datetime.now(UTC),
    )


async def _drive(
    dag: DAG, inputs: RunInputs, run_sync: RunSync, more: InProcessKeywords
) -> RunResult:
    capture = Capture()
    driver = Driver(
        inputs,
        AttemptRunner(inputs, capture, run_sync),
        VirtualClock(inputs.now),
        raise_on_error=more.get("raise_on_error", False),
    )
    with capture.installed():
        result = await driver.run()
    if not more.get("callbacks", False):
        return result
    calls = await call_callbacks(dag, inputs, driver.endings, result, run_sync)
    return replace(result, callbacks=calls)


async def _returned(drive: Callable[[], Awaitable[RunResult]]) -> Outcome:
    """Return the outcome, also an exception: an interrupt would end the loop's thread."""
    try:
        return await drive()
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
        return error


class _CallingThread:
    """The thread that waits for the run's end; it runs the plain tasks meanwhile.

    There they may start event loops of their own, set signal handlers and be debugged, as in the
    process that a task has to itself.
    """

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run a function there and return its value."""
        done = anyio.Event()
        found: list[Any] = []

        def work() -> None:
            found.append(function())
            self._portal.call(done.set)

        # Only the calling thread runs plain tasks; the loop waits for it here.
        self._work.put(work)
        await done.wait()
        return found[0]

    def serve(self, outcome: "Future[Outcome]") -> Outcome:
        """Run the functions that arrive until the run has an outcome, and return that."""
        outcome.add_done_callback(lambda _: self._work.put(None))
        while (work := self._next()) is not None:
            work()
        return outcome.result()

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next function, in bounded steps."""
        # A signal that arrives after the interpreter's last check and before the wait in the
        # operating system begins would not end an unbounded wait.
        while True:
            with suppress(Empty):
                return self._work.get(timeout=_POLL_SECONDS)


def _refuse_on_a_loop(dag: DAG) -> None:
    # It raises RuntimeError when no loop runs here.
    with suppress(RuntimeError):
        anyio.get_current_task()
        raise InvalidInput(
            f"an event loop runs here; write `await {dag.dag_id}.atest(...)` in place of .test()"
        )
