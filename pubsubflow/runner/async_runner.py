"""Runs many async tasks side by side on one event loop."""

import asyncio
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

import anyio
import anyio.abc
import anyio.to_thread

from pubsubflow.model.connections import Connection
from pubsubflow.model.wire.messages import (
    EventInfo,
    Outcome,
    PublishedEvent,
    Step,
    TaskError,
    decode_task,
)
from pubsubflow.model.wire.worker_requests import Piece, decode_piece
from pubsubflow.runner.async_channel import Link
from pubsubflow.runner.dag_cache import Catalog, KnownDag
from pubsubflow.runner.execution import Work
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.output import CURRENT_OUTPUT, TaskOutput, install_streams
from pubsubflow.runner.protocol import (
    ANSWER,
    CANCEL,
    DRAIN,
    LOG,
    NUMBERED,
    SOURCE,
    TASK,
    Question,
    RunnerSettings,
    question_frame,
)
from pubsubflow.runner.redaction import Mask
from pubsubflow.runner.requests import (
    Answer,
    Questions,
    connection_asked,
    event_pieces,
    publication,
    recorded,
    result_pieces,
)

_LOG_SECONDS = 0.2
_CANCELLED = (Outcome.CANCELLED, TaskError("Cancelled", "cancelled", final=True))


class _Job:
    """A task message on the loop.

    Attributes:
        scope: Around the node that runs now.
        cancelled: The worker wants it to end.
        over: Its last result has left.
    """

    __slots__ = ("cancelled", "output", "over", "scope", "work")

    def __init__(self, work: Work, output: TaskOutput) -> None:
        self.work = work
        self.output = output
        self.scope: anyio.CancelScope | None = None
        self.cancelled = False
        self.over = False


class LoopRunner:
    """Takes tasks from the worker until it has no more.

    Args:
        sock: The stream to the worker.
        settings: What the worker says.
    """

    def __init__(self, sock: socket.socket, settings: RunnerSettings) -> None:
        self._sock = sock
        self._settings = settings
        self._mask = Mask()
        self._catalog = Catalog()
        self._jobs: dict[int, _Job] = {}
        self._unsaid: dict[TaskOutput, int] = {}
        self._outputs: dict[TaskOutput, int] = {}
        self._questions: dict[int, asyncio.Future[Piece] | Future[Piece]] = {}
        self._asked = 0
        self._draining = False
        self._thread = threading.get_ident()

    async def run(self) -> None:
        """Run tasks until the worker closes the stream."""
        install_streams()
        self._loop = asyncio.get_running_loop()
        self._importing = anyio.Lock()
        ended = anyio.Event()
        self._link = Link(self._sock, self._on_frame, ended.set)
        async with anyio.create_task_group() as self._group:
            await ended.wait()
            self._group.cancel_scope.cancel()

    def _on_frame(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == TASK:
            _, number = NUMBERED.unpack_from(frame)
            message = decode_task(frame[NUMBERED.size :])
            work = Work(number, message, self._settings, self._mask)
            self._group.start_soon(self._serve, work)
        elif kind == SOURCE:
            self._catalog.add(frame[1:])
        elif kind == ANSWER:
            _, number = NUMBERED.unpack_from(frame)
            answer = self._questions.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_result(decode_piece(frame[NUMBERED.size :]))
        elif kind == CANCEL:
            self._cancel(NUMBERED.unpack_from(frame)[1])
        elif kind == DRAIN:
            self._draining = True

    async def _serve(self, work: Work) -> None:
        """Run a task and its chain."""
        output = TaskOutput(self._has_output, self._is_full)
        self._outputs[output] = work.number
        CURRENT_OUTPUT.set(output)
        job = self._jobs[work.number] = _Job(work, output)
        try:
            while await self._run_node(job):
                pass
        finally:
            self._jobs.pop(work.number, None)
            del self._outputs[output]

    async def _run_node(self, job: _Job) -> bool:
        """Run one node, report it and return whether another follows."""
        work = job.work
        node, seconds = work.node, work.timeout_seconds
        frame: bytes | None = None
        timer = None
        work.start()
        with anyio.CancelScope() as job.scope:
            if seconds is not None:
                job.scope.deadline = anyio.current_time() + seconds
                timer = self._give_up_later(job, seconds)
            frame = await self._attempt(job)
        if timer is not None:
            timer.cancel()
        if job.over:
            return False
        if job.scope.cancel_called or frame is None:
            frame = work.end(*self._why_ended(job))
        self._say(job, frame)
        return work.node != node

    async def _attempt(self, job: _Job) -> bytes | None:
        """Return the result frame; None when the task was cancelled and yet returned."""
        work, scope = job.work, job.scope
        try:
            known = await self._known(work)
            host = _Host(self, work, known, job.output)
            missing = work.missing(known)
            fetched = (
                {place: await self.gather(result_pieces(question)) for place, question in missing}
                if missing
                else {}
            )
            call = work.bind(known, host, fetched)
            value = await call.run()
            if scope is not None and scope.cancel_called:
                return None
            work.halted = self._draining or work.halted
            return work.succeed(call, value)
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                if self._group.cancel_scope.cancel_called:
                    raise
                if job.cancelled or (scope is not None and scope.cancel_called):
                    return None  # gather() raises ones that the scope would not know as its own
            return work.fail(error)

    async def _known(self, work: Work) -> KnownDag:
        source, dag_id = work.message.source, work.message.dag_id
        try:
            return self._catalog.find(source, dag_id)
        except KeyError:
            async with self._importing:  # in a thread: the tasks beside it go on
                return await anyio.to_thread.run_sync(self._catalog.load, source, dag_id)

    def _why_ended(self, job: _Job) -> tuple[Outcome, TaskError]:
        if job.cancelled:
            return _CANCELLED
        text = f"timed out after {job.work.timeout_seconds:g} s"
        return Outcome.FAILED, TaskError("TimeoutError", text)

    def _cancel(self, number: int) -> None:
        job = self._jobs.get(number)
        if job is not None:
            job.cancelled = job.work.halted = True
            self._give_up_later(job, 0)
            if job.scope is not None:
                job.scope.cancel()

    def _give_up_later(self, job: _Job, seconds: float) -> asyncio.TimerHandle:
        later = seconds + self._settings.grace_seconds
        return self._loop.call_later(later, self._give_up, job, job.work.node)

    def _give_up(self, job: _Job, node: int) -> None:
        """Report a task that will not end as ended; what it still does is its own affair."""
        if not job.over and job.work.number in self._jobs and job.work.node == node:
            self._say(job, job.work.end(*self._why_ended(job)))
            job.over = True

    def _say(self, job: _Job, frame: bytes) -> None:
        """Send a result, after all output that came before it."""
        self._say_output(job.output, job.output.take(last=True))
        self._link.post(frame)

    def _say_output(self, output: TaskOutput, lines: str) -> None:
        number = self._outputs.get(output)
        if lines and number is not None:
            self._link.post(NUMBERED.pack(LOG, number) + lines.encode())

    def _has_output(self, output: TaskOutput) -> None:
        if threading.get_ident() == self._thread:
            self._loop.call_later(_LOG_SECONDS, self._flush, output)
        else:
            self._loop.call_soon_threadsafe(self._has_output, output)

    def _is_full(self, output: TaskOutput) -> None:
        if threading.get_ident() == self._thread:
            self._flush(output)
        else:
            self._loop.call_soon_threadsafe(self._flush, output)

    def _flush(self, output: TaskOutput) -> None:
        self._say_output(output, output.take())

    async def ask(self, question: Question) -> Piece:
        """Ask a question; the tasks beside go on."""
        answer: asyncio.Future[Piece] = self._loop.create_future()
        self._link.post(self._question(question, answer))
        return await answer

    async def gather(self, questions: Questions[Answer]) -> Answer:
        """Ask one question after the other until there is an answer."""
        try:
            question: Question = next(questions)
            while True:
                question = questions.send(await self.ask(question))
        except StopIteration as stop:
            return cast("Answer", stop.value)

    def gather_blocking(self, questions: Questions[Answer]) -> Answer:
        """Do the same for a caller that cannot await; on the loop's thread all wait."""
        ask = self._ask_here if threading.get_ident() == self._thread else self._ask_from_afar
        try:
            question: Question = next(questions)
            while True:
                question = questions.send(ask(question))
        except StopIteration as stop:
            return cast("Answer", stop.value)

    def _question(
        self, question: Question, answer: asyncio.Future[Piece] | Future[Piece] | None
    ) -> bytes:
        self._asked += 1
        if answer is not None:
            self._questions[self._asked] = answer
        return question_frame(self._asked, question)

    def _ask_here(self, question: Question) -> Piece:
        frame = self._question(question, None)
        expected = NUMBERED.pack(ANSWER, self._asked)
        answer = self._link.exchange(frame, lambda found: found.startswith(expected))
        return decode_piece(answer[len(expected) :])

    def _ask_from_afar(self, question: Question) -> Piece:
        answer: Future[Piece] = Future()
        self._loop.call_soon_threadsafe(lambda: self._link.post(self._question(question, answer)))
        return answer.result()


class _Host:
    """The process as a task's context sees it."""

    def __init__(self, runner: LoopRunner, work: Work, known: KnownDag, output: TaskOutput) -> None:
        self._runner = runner
        self._work = work
        self._known = known
        self._output = output

    def write_log(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Add a line to the task's output."""
        self._output.record(level, event, fields)

    def fetch_result(self, node: int) -> bytes:
        """Ask for the result of another task of the run."""
        question = self._work.question(self._known, node)
        return self._runner.gather_blocking(result_pieces(question))

    def fetch_events(self) -> Sequence[EventInfo]:
        """Ask for the events that the run consumed."""
        return self._runner.gather_blocking(event_pieces(self._work.message.run))

    def fetch_connection(self, name: str) -> Connection:
        """Ask for a connection, and let nothing of its secrets out."""
        question = self._work.connection(name)
        found = self._runner.gather_blocking(connection_asked(question))
        self._work.mask.add(found)
        return found

    def publish(self, event: PublishedEvent) -> None:
        """Hand an event over and wait until it is stored; on the loop's thread all wait."""
        self._runner.gather_blocking(publication(event))

    async def apublish(self, event: PublishedEvent) -> None:
        """Hand an event over and wait until it is stored; the tasks beside it go on."""
        await self._runner.gather(publication(event))

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return time.time()

    async def record(self, step: Step) -> Step:
        """Have a step recorded and return what is; the tasks beside it go on."""
        return await recorded(self._runner.ask, self._work.step(step))

    def describe(self, error: Exception) -> TaskError:
        """Say why a step failed."""
        return self._work.mask.error(outcome_of(error)[1])
