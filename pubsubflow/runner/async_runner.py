"""The async runner: many async tasks on one event loop."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import anyio
import anyio.to_thread

from pubsubflow.authoring.bind import RunnableDag
from pubsubflow.model.runs.retry import retries_time_limit
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.messages import (
    JournalEntry,
    Outcome,
    PublishedEvent,
    TaskError,
    TaskMessage,
    decode_task,
)
from pubsubflow.model.wire.worker_requests import Chunk, WantedRun, decode_chunk
from pubsubflow.runner.async_channel import AsyncChannel
from pubsubflow.runner.caches.dag_cache import DagCache
from pubsubflow.runner.exchanges.requests import (
    fetch_result,
    publish_event,
    record_entry,
    run_exchange_async,
    start_run,
)
from pubsubflow.runner.exchanges.task_host import RunnerHost
from pubsubflow.runner.execution import TaskExecution
from pubsubflow.runner.failures import outcome_of, stopped_at
from pubsubflow.runner.flight_recorder import (
    BEAT,
    FlightRecorder,
    TaskCoroutine,
    begins,
)
from pubsubflow.runner.limits import PeakMemory
from pubsubflow.runner.output import CURRENT_OUTPUT, TaskOutput, install_streams
from pubsubflow.runner.protocol import (
    CANCEL,
    DRAIN,
    LEFT,
    LOG,
    NUMBERED,
    REPLY,
    RETURNED,
    SOURCE,
    TASK,
    RunnerRequest,
    RunnerSettings,
    request_frame,
)
from pubsubflow.runner.redaction import Redactor
from pubsubflow.runner.shared_state import SharedState, kill_children

_LOG_SECONDS = 0.2
_BEAT_SECONDS = 0.25
_CANCELLED = (Outcome.CANCELLED, TaskError("Cancelled", "cancelled", final=True))


class _RunningTask:
    """A task message on the loop.

    Attributes:
        scope: Around the node that runs now.
        cancelled: The worker has cancelled it.
        over: Its last result is sent.
        stopped_at: Where a cancellation or time-out has stopped it.
        work: The task of the event loop in which all of it runs.
    """

    __slots__ = (
        "cancelled",
        "execution",
        "output",
        "over",
        "scope",
        "stopped_at",
        "work",
    )

    def __init__(self, execution: TaskExecution, output: TaskOutput) -> None:
        self.execution = execution
        self.output = output
        self.scope: anyio.CancelScope | None = None
        self.cancelled = self.over = False
        self.stopped_at = ""
        self.work: asyncio.Task[None]


class AsyncRunner:
    """Runs tasks until the worker closes the stream.

    Args:
        sock: The stream to the worker.
        settings: The argument that the worker forked it with.
    """

    def __init__(self, sock: socket.socket, settings: RunnerSettings) -> None:
        self._sock = sock
        self._settings = settings
        self._redactor = Redactor()
        self._dags = DagCache()
        self._tasks: dict[int, _RunningTask] = {}
        self._begun: dict[int, TaskOutput] = {}  # of those whose first node may run
        self._requests: dict[int, asyncio.Future[Chunk] | Future[Chunk]] = {}
        self._last_request = 0
        self._draining = self._ending = False
        self._thread = threading.get_ident()
        self._peak_memory = PeakMemory() if settings.alone else None

    async def run(self) -> None:
        """Run tasks until the worker closes the stream."""
        self._page = FlightRecorder(self._settings.recorder).running
        os.unlink(self._settings.recorder)  # noqa: PTH108 - no name is left behind by a killed process
        self._loop = asyncio.get_running_loop()
        install_streams(self._loop)
        self._loop.set_task_factory(self._new_task)
        os.register_at_fork(after_in_child=self._abandon)
        self._import_lock = anyio.Lock()
        self._shared = SharedState(self._leave)
        ended = anyio.Event()
        self._channel = AsyncChannel(self._sock, self._on_frame, ended.set)
        # Not by `anyio.CancelScope`, which finds out anew which event loop runs.
        self._new_scope = type(anyio.CancelScope())
        # Not anyio's group: it makes a handle and a scope for each task, which has its own.
        async with asyncio.TaskGroup() as self._group:
            await ended.wait()
            self._ending = True
            for task in self._tasks.values():
                task.work.cancel()

    def _on_frame(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == TASK:
            _, number = NUMBERED.unpack_from(frame)
            message = decode_task(frame[NUMBERED.size :])
            execution = TaskExecution(
                number, message, self._settings, self._redactor, self._peak_memory
            )
            output = TaskOutput(
                self._has_output,
                self._is_full,
                number=number,
                max_bytes=self._settings.max_log_bytes,
            )
            # Known from here on: a cancellation may come before the task's first step.
            task = self._tasks[number] = _RunningTask(execution, output)
            token = CURRENT_OUTPUT.set(output)
            task.work = self._group.create_task(self._serve(task))
            CURRENT_OUTPUT.reset(token)
            if not self._page[BEAT]:
                self._page[BEAT] = time.monotonic_ns()
                self._loop.call_later(_BEAT_SECONDS, self._beat)
        elif kind == SOURCE:
            self._dags.add(frame[1:])
        elif kind == REPLY:
            _, number = NUMBERED.unpack_from(frame)
            reply = self._requests.pop(number, None)
            if reply is not None and not reply.done():
                reply.set_result(decode_chunk(frame[NUMBERED.size :]))
        elif kind == CANCEL:
            self._cancel(NUMBERED.unpack_from(frame)[1])
        elif kind == DRAIN:
            self._draining = True

    def _beat(self) -> None:
        """Show the worker that the loop turns, while there are tasks."""
        self._page[BEAT] = time.monotonic_ns() if self._tasks else 0
        if self._tasks:
            self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Task[Any]:
        """Make an asyncio task whose steps are recorded, if it is made for a task or by one."""
        context = options.get("context")
        output = CURRENT_OUTPUT.get() if context is None else context.get(CURRENT_OUTPUT)
        if output is not None:
            work = TaskCoroutine(work, self._page, output.number)
        return asyncio.Task(work, loop=loop, **options)

    def _abandon(self) -> None:
        """Keep a child that a task forks from using what it shares with this process."""
        TaskCoroutine.mark_fork()
        CURRENT_OUTPUT.set(None)
        self._channel.abandon()

    async def _serve(self, task: _RunningTask) -> None:
        """Run a task and its chain."""
        execution, page = task.execution, self._page
        try:
            may_begin = begins(page, execution.number)
            if not (may_begin and self._shared.begin(self._begun.values())):
                self._channel.post(NUMBERED.pack(RETURNED, execution.number))
                return
            self._begun[execution.number] = task.output
            if task.cancelled:
                execution.started_at = time.time()
                self._send_result(task, execution.end(*_CANCELLED))
                return
            while await self._run_node(task):
                pass
        except Exception as error:  # noqa: BLE001 - must cost this task alone, not those beside it
            self._send_result(task, execution.end(*outcome_of(error)))
        finally:
            self._tasks.pop(execution.number, None)
            self._begun.pop(execution.number, None)

    async def _run_node(self, task: _RunningTask) -> bool:
        """Run one node, send its result and return whether another follows."""
        execution = task.execution
        node, seconds = execution.node, execution.timeout_seconds
        frame: bytes | None = None
        timer = None
        execution.started_at = time.time()
        with self._new_scope() as task.scope:
            if seconds is not None:
                task.scope.deadline = anyio.current_time() + seconds
                timer = self._report_if_running_later(task, seconds)
            frame = await self._attempt(task)
        if timer is not None:
            timer.cancel()
        if task.over:
            return False
        if task.scope.cancel_called or frame is None:
            frame = execution.end(*self._end_reason(task))
        self._send_result(task, frame)
        return execution.node != node

    async def _attempt(self, task: _RunningTask) -> bytes | None:
        """Return the result frame; None when the task was cancelled and yet returned."""
        execution, scope = task.execution, task.scope
        try:
            message = execution.message
            dag = self._dags.find(message.source) or await self._import(message)
            host = _Host(self, execution, dag, task.output)
            spec = dag.tasks[execution.node]
            fetched = {}
            if spec.inputs or spec.mapped_arguments or message.journal is None:
                for key, request in execution.missing(dag):
                    fetched[key] = await run_exchange_async(fetch_result(request), self.request)
            bound = execution.bind(dag, host, fetched)
            try:
                value = await bound.run()
            finally:
                if task.output.children or task.output.forked:
                    kill_children(task.output, alone=len(self._begun) == 1)
                self._shared.end(task.output, self._begun.values())
            if scope is not None and scope.cancel_called:
                return None
            execution.chain_stopped |= self._draining or self._shared.spoilt
            return execution.succeed(bound, value)
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                if self._ending:
                    raise
                # asyncio.gather() in user code raises a new CancelledError, which the scope would
                # not recognise as its own and would let through.
                if task.cancelled or (scope is not None and scope.cancel_called):
                    task.stopped_at = stopped_at(error)
                    return None
            return execution.fail(error)

    async def _import(self, message: TaskMessage) -> RunnableDag:
        # One import at a time, in a thread: user code may take long, and the tasks beside it go on.
        # Those that wait for the lock find the file imported in `load`.
        async with self._import_lock:
            self._shared.check(self._begun.values())
            try:
                return await anyio.to_thread.run_sync(self._dags.load, message.source)
            finally:
                self._shared.rebase()

    def _leave(self, number: int) -> None:
        """Have the worker give this process no further task."""
        self._channel.post(NUMBERED.pack(LEFT, number))

    def _end_reason(self, task: _RunningTask) -> tuple[Outcome, TaskError]:
        if task.cancelled:
            return _CANCELLED
        text = f"timed out after {task.execution.timeout_seconds:g} s"
        dag = self._dags.find(task.execution.message.source)
        policy = RetryPolicy() if dag is None else dag.tasks[task.execution.node].retry
        final = not retries_time_limit(policy)
        return Outcome.FAILED, TaskError("TimeoutError", text, task.stopped_at, final=final)

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            task.cancelled = task.execution.chain_stopped = True
            # User code may swallow the cancellation: the result is sent after the grace period.
            self._report_if_running_later(task, 0)
            if task.scope is not None:
                task.scope.cancel()

    def _report_if_running_later(self, task: _RunningTask, seconds: float) -> asyncio.TimerHandle:
        later = seconds + self._settings.grace_seconds
        return self._loop.call_later(later, self._report_if_running, task, task.execution.node)

    def _report_if_running(self, task: _RunningTask, node: int) -> None:
        """Send the result of a task that does not stop, and ignore what it still does."""
        if not task.over and task.execution.number in self._tasks and task.execution.node == node:
            self._send_result(task, task.execution.end(*self._end_reason(task)))
            task.over = True
            self._leave(task.execution.number)

    def _send_result(self, task: _RunningTask, frame: bytes) -> None:
        """Send a result, after all output that came before it."""
        self._send_output(task.output, task.output.take(last=True))
        self._channel.post(frame)

    def _send_output(self, output: TaskOutput, lines: str) -> None:
        if lines:
            self._channel.post(NUMBERED.pack(LOG, output.number) + lines.encode())

    def _has_output(self, output: TaskOutput) -> None:
        if threading.get_ident() == self._thread:
            # Only on the loop's thread: `call_later` is not thread-safe.
            self._loop.call_later(_LOG_SECONDS, self._flush_output, output)
        else:
            self._loop.call_soon_threadsafe(self._has_output, output)

    def _is_full(self, output: TaskOutput) -> None:
        if threading.get_ident() == self._thread:
            self._flush_output(output)
        else:
            self._loop.call_soon_threadsafe(self._flush_output, output)

    def _flush_output(self, output: TaskOutput) -> None:
        self._send_output(output, output.take())

    async def request(self, request: RunnerRequest) -> Chunk:
        """Send a request and await its reply; the tasks beside it go on."""
        reply: asyncio.Future[Chunk] = self._loop.create_future()
        self._channel.post(self._request_frame(request, reply))
        return await reply

    def request_blocking(self, request: RunnerRequest) -> Chunk:
        """Send a request and wait for its reply; on the loop's thread all tasks wait."""
        if threading.get_ident() == self._thread:
            return self._request_on_loop(request)
        return self._request_from_thread(request)

    def _request_frame(
        self, request: RunnerRequest, reply: asyncio.Future[Chunk] | Future[Chunk] | None
    ) -> bytes:
        self._last_request += 1
        if reply is not None:
            self._requests[self._last_request] = reply
        return request_frame(self._last_request, request)

    def _request_on_loop(self, request: RunnerRequest) -> Chunk:
        frame = self._request_frame(request, None)
        expected = NUMBERED.pack(REPLY, self._last_request)
        reply = self._channel.request_blocking(frame, lambda found: found.startswith(expected))
        return decode_chunk(reply[len(expected) :])

    def _request_from_thread(self, request: RunnerRequest) -> Chunk:
        reply: Future[Chunk] = Future()
        # Requests are numbered on the loop's thread alone, so that numbers need no lock.
        self._loop.call_soon_threadsafe(
            lambda: self._channel.post(self._request_frame(request, reply))
        )
        return reply.result()


class _Host(RunnerHost):
    """The process as a task's context sees it."""

    def __init__(
        self, runner: AsyncRunner, execution: TaskExecution, dag: RunnableDag, output: TaskOutput
    ) -> None:
        super().__init__(execution, dag, runner.request_blocking)
        self._runner = runner
        self._output = output

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add a line to the task's output."""
        self._output.record(level, event, fields)

    async def apublish(self, event: PublishedEvent) -> None:
        """Publish an event and wait until it is stored; the tasks beside it go on."""
        await run_exchange_async(publish_event(event), self._runner.request)

    async def start_run(self, wanted: WantedRun) -> str:
        """Start a run on behalf of the task, and return its id."""
        return await start_run(self._runner.request, self._execution.start_run_request(wanted))

    async def record(self, entry: JournalEntry) -> JournalEntry:
        """Record an entry in the task's journal, and return the entry that stands there."""
        return await record_entry(self._runner.request, self._execution.journal_request(entry))
