"""Takes a run from its first task to its last, by the decisions that the manager takes too."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

import anyio

from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.bind import Finished
from pubsubflow.authoring.runtime.context import DatasetEvent
from pubsubflow.authoring.runtime.inprocess import LogLine, RunResult, TaskResult
from pubsubflow.authoring.runtime.journal import wait_error
from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.ids import new_id
from pubsubflow.model.runs.outlets import news
from pubsubflow.model.runs.progress import Steps, begin, factor_indexes, factor_sizes, finish
from pubsubflow.model.runs.retry import Retry, after_failure
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.runs.waits import START, Waiting, forget_failures, start_result
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    Emit,
    Outcome,
    PublishedEvent,
    Step,
    TaskError,
)
from pubsubflow.testing.attempts import Attempts, Ended, Instance, Turn, timed_out
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.output import log_lines, new_output
from pubsubflow.testing.results import ResultMissing
from pubsubflow.testing.run_inputs import Given
from pubsubflow.testing.time_skipping import Nap, Pace
from pubsubflow.testing.waits import Log, Pending, told

_NO_CHANCE = 0.0


class _Live:
    """An instance under way.

    Attributes:
        steps: What it has recorded.
        waiting: What it waits for now.
        called: When it last asked for the time, and how many events there were.
        worked: Real seconds that the attempt has worked.
        waited: Virtual seconds that it has waited.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.attempt = 0
        self.logs: list[LogLine] = []
        self.steps: list[Step] = []
        self.waiting: Waiting | None = None
        self.called = (0.0, 0)
        self.worked = 0.0
        self.waited = 0.0


class Driver:
    """One run.

    Args:
        given: What it is.
        attempts: Runs its attempts.
        clock: The clock on which delays pass.
        raise_on_error: Raise what the first failed task raised.
    """

    def __init__(
        self, given: Given, attempts: Attempts, clock: VirtualClock, *, raise_on_error: bool
    ) -> None:
        self._given = given
        self._plan = given.plan
        self._attempts = attempts
        self._clock = clock
        self._raise_on_error = raise_on_error
        self._group = anyio.create_task_group()
        self._live: dict[tuple[int, int], _Live] = {}
        self._ended: dict[int, list[TaskResult]] = {node: [] for node in sorted(given.chosen)}
        self._emitted: list[DatasetEvent] = []
        self._published: set[str] = set()
        self._state: RunState | None = None if given.spec.tasks else RunState.SUCCESS
        self._raised: BaseException | None = None
        self._log = Log(given.now, given.consumed, given.coming)
        seconds = given.spec.timeout_seconds
        self._pace = Pace(
            clock,
            on_stuck=self._stuck,
            deadline=None if seconds is None else given.now + timedelta(seconds=seconds),
            on_deadline=self._group.cancel_scope.cancel,
        )

    async def run(self) -> RunResult:
        """Run all tasks and return how it went.

        Raises:
            ResultMissing: A result is needed that nobody gives.
            KeyboardInterrupt: Somebody wants it to end.
            BaseException: What a task raised, if that is asked for.
        """
        self._progress, steps = begin(self._plan)
        async with self._group:
            seconds = self._given.spec.timeout_seconds
            if seconds is not None:
                self._group.cancel_scope.deadline = anyio.current_time() + seconds
            self._take(steps)
        if self._raised is not None:
            raise self._raised
        return self._result()

    def _take(self, steps: Steps) -> None:
        """Carry out what a decision asks for."""
        for node, _, state in steps.settled:
            if node in self._given.chosen:
                self._settle(node, state, steps.bad_maps.get(node))
        for node, map_index in steps.ready:
            live = _Live(self._instance(node, map_index))
            self._live[node, map_index] = live
            self._pace.begin()
            self._group.start_soon(self._drive, live)
        if steps.ended is not None:
            self._state = steps.ended

    def _settle(self, node: int, state: TaskState, bad_map: str | None) -> None:
        """Note a task that ended without running."""
        task = self._plan.spec.tasks[node]
        error = None
        if bad_map is not None:
            error = TaskError("DefinitionError", bad_map, final=True)
            self._refuse(
                DefinitionError(bad_map, dag_id=self._plan.spec.dag_id, task_id=task.task_id)
            )
        self._ended[node].append(TaskResult(task.task_id, state, error=error))
        if state is TaskState.SUCCESS:
            self._emit(task.task_id, news(task.outlets))

    def _instance(self, node: int, map_index: int) -> Instance:
        task = self._plan.spec.tasks[node]
        sizes = factor_sizes(self._plan, task, self._progress)
        if map_index == NOT_MAPPED or isinstance(sizes, str):
            return Instance(task)
        return Instance(task, map_index, factor_indexes(sizes, map_index))

    async def _drive(self, live: _Live) -> None:
        """Run an instance until it succeeds or no attempt is left."""
        while True:
            live.attempt += 1
            live.worked = live.waited = 0.0
            ended = await self._attempt(live)
            if isinstance(ended.exception, ResultMissing | KeyboardInterrupt):
                self._stop(ended.exception)
                return
            if not await self._again(live, ended):
                break
        self._end(live, ended)

    async def _attempt(self, live: _Live) -> Ended:
        """Run one attempt, with all its waits."""
        ended = await self._start(live) or await self._turn(live)
        while ended.waiting is not None:
            ended = await self._wait(live, ended.waiting) or await self._turn(live)
        return ended

    async def _start(self, live: _Live) -> Ended | None:
        """Wait for what a task waits for before anything of it runs; return how it ended if so."""
        task = live.instance.task
        if task.start is None or any(step.key == START for step in live.steps):
            return None
        self._now(live)
        ended = await self._wait(live, task.start)
        if ended is None and task.kind == "empty":
            value = start_result(task.start, live.steps[-1].value)
            return Ended(Outcome.SUCCESS, Finished(value, None, ()))
        return ended

    async def _turn(self, live: _Live) -> Ended:
        """Run the function of a task from its top."""
        task = live.instance.task
        output = new_output()
        left = None
        if task.timeout_seconds is not None:
            left = task.timeout_seconds - live.waited - live.worked
        publish = partial(self._publish, task.task_id)
        now = partial(self._now, live)
        began = anyio.current_time()
        try:
            return await self._attempts.run(
                Turn(live.instance, live.attempt, output, publish, now, live.steps, left)
            )
        finally:
            live.worked += anyio.current_time() - began
            live.logs.extend(log_lines(output, live.attempt))

    async def _wait(self, live: _Live, waiting: Waiting) -> Ended | None:
        """Wait, and record what came of it; return how the attempt ended if so."""
        task = live.instance.task
        began = self._clock.now()
        limit = None
        if task.timeout_seconds is not None:
            limit = began + timedelta(seconds=task.timeout_seconds - live.waited)
        live.waiting = waiting
        pending = Pending(
            waiting,
            live.called,
            self._pace,
            self._clock,
            self._log,
            connections=self._given.connections,
        )
        step = await pending.outcome(limit)
        live.waiting = None
        live.waited += (self._clock.now() - began).total_seconds()
        self._pace.progress()
        if step is None:
            return timed_out(task, f", while it waited for {waiting.label}")
        if waiting.key == START and step.error is not None:
            raised = wait_error(step.label, step.error)
            return Ended(Outcome.FAILED, error=step.error, exception=raised)
        live.steps.append(step)
        return None

    def _now(self, live: _Live) -> float:
        """Return the time, and note that a task asked for it."""
        now = self._clock.now().timestamp()
        live.called = now, len(self._log)
        return now

    async def _again(self, live: _Live, ended: Ended) -> bool:
        """After a failure that is to be tried again, let the delay pass and return True."""
        if ended.outcome is not Outcome.FAILED or ended.error is None:
            return False
        verdict = after_failure(
            live.instance.task.retry,
            live.attempt,
            final=ended.error.final,
            chance=_NO_CHANCE,
            now=self._clock.now(),
        )
        if not isinstance(verdict, Retry):
            return False
        live.steps = list(forget_failures(live.steps))
        await self._pace.rest(Nap(), verdict.at)
        self._pace.progress()
        return True

    def _stuck(self, nothing_comes: bool) -> None:  # noqa: FBT001 - as it is called
        """End a run whose tasks wait for what never happens."""
        waits = "; ".join(
            f"task {live.instance.task.task_id!r} waits for {told(live.waiting)}"
            for live in self._live.values()
            if live.waiting is not None
        )
        why = "which never happens here" if nothing_comes else "and time goes on without end"
        self._stop(
            InvalidInput(
                f"{waits}, {why}; let a task emit the event, give it with events=, or give the "
                "wait a timeout"
            )
        )

    def _end(self, live: _Live, ended: Ended) -> None:
        """Fold how an instance ended."""
        task, map_index = live.instance.task, live.instance.map_index
        state = TaskState(ended.outcome.value)
        follow, length, value = None, None, None
        if ended.finished is not None:
            done = ended.finished
            follow, length, value = done.follow, done.length, results.decode(done.value)
            self._given.values.put(task.node, map_index, done.value)
            told = news(task.outlets, done.emits, follow=follow, published=done.published)
            self._emit(task.task_id, told)
        del self._live[task.node, map_index]
        self._note(live, state, value, ended.error)
        if state is TaskState.FAILED and ended.exception is not None:
            self._refuse(ended.exception)
        steps = finish(self._plan, self._progress, task.node, state, length=length, follow=follow)
        self._take(steps)
        self._pace.end()

    def _note(self, live: _Live, state: TaskState, value: object, error: TaskError | None) -> None:
        task, map_index = live.instance.task, live.instance.map_index
        self._ended[task.node].append(
            TaskResult(task.task_id, state, live.attempt, value, error, map_index, tuple(live.logs))
        )

    def _emit(self, task_id: str, emits: Iterable[Emit | PublishedEvent]) -> None:
        for emit in emits:
            time = emit.time if isinstance(emit, PublishedEvent) else None
            event = DatasetEvent(
                str(new_id()),
                emit.uri,
                emit.extra,
                emit.partition,
                time or self._clock.now(),
                "task",
                self._given.run_id,
                self._plan.spec.dag_id,
                task_id,
            )
            self._emitted.append(event)
            self._log.add(event, self._clock.now())

    def _publish(self, task_id: str, event: PublishedEvent) -> None:
        """Take an event at once, unless an attempt before gave it."""
        if event.key not in self._published:
            self._published.add(event.key)
            self._emit(task_id, (event,))

    def _refuse(self, error: BaseException) -> None:
        if self._raise_on_error:
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """Let the run end with an exception."""
        self._raised = self._raised or error
        self._group.cancel_scope.cancel()

    def _result(self) -> RunResult:
        error = None
        if self._state is None:
            seconds = self._given.spec.timeout_seconds or 0
            error = f"the run took longer than its timeout of {seconds:g} s"
            for live in self._live.values():
                self._note(
                    live, TaskState.CANCELLED, None, TaskError("Cancelled", error, final=True)
                )
        tasks = self._plan.spec.tasks
        return RunResult(
            self._state or RunState.FAILED,
            {
                tasks[node].task_id: sorted(ended, key=lambda each: each.map_index)
                for node, ended in self._ended.items()
            },
            self._emitted,
            self._given.now,
            self._clock.now(),
            error,
        )
