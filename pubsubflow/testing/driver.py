"""Takes a run from its first task to its last, by the decisions that the manager takes too."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

import anyio

from pubsubflow.authoring import results
from pubsubflow.authoring.context import DatasetEvent
from pubsubflow.authoring.inprocess import LogLine, RunResult, TaskResult
from pubsubflow.errors import DefinitionError
from pubsubflow.model.emission import news
from pubsubflow.model.ids import new_id
from pubsubflow.model.messages import NOT_MAPPED, Emit, Outcome, PublishedEvent, TaskError
from pubsubflow.model.progress import Steps, begin, factor_indexes, factor_sizes, finish
from pubsubflow.model.retry import Retry, after_failure
from pubsubflow.model.states import RunState, TaskState
from pubsubflow.testing.attempts import Attempts, Ended, Instance
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.given import Given
from pubsubflow.testing.output import log_lines, new_output
from pubsubflow.testing.values import ResultMissing

_NO_CHANCE = 0.0


class _Live:
    """An instance under way."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.attempt = 0
        self.logs: list[LogLine] = []


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
        self._busy = 0
        self._ended: dict[int, list[TaskResult]] = {node: [] for node in sorted(given.chosen)}
        self._emitted: list[DatasetEvent] = []
        self._published: set[str] = set()
        self._state: RunState | None = None if given.spec.tasks else RunState.SUCCESS
        self._raised: BaseException | None = None
        self._deadline: datetime | None = None

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
                self._deadline = self._given.now + timedelta(seconds=seconds)
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
            self._busy += 1
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
            output = new_output()
            try:
                ended = await self._attempts.run(
                    live.instance,
                    live.attempt,
                    output,
                    partial(self._publish, live.instance.task.task_id),
                )
            finally:
                live.logs.extend(log_lines(output, live.attempt))
            if isinstance(ended.exception, ResultMissing | KeyboardInterrupt):
                self._stop(ended.exception)
                return
            if not await self._again(live, ended):
                break
        self._end(live, ended)

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
        delay = (verdict.at - self._clock.now()).total_seconds()
        if delay > 0:
            alarm = self._clock.alarm(verdict.at)
            self._rest()
            with anyio.move_on_after(delay):  # the others may last longer than the delay
                await alarm.wait()
            self._clock.jump(verdict.at)
            self._busy += 1
        return True

    def _rest(self) -> None:
        """One instance less is at work; when none is left, time jumps to the next delay's end."""
        self._busy -= 1
        moment = self._clock.next_alarm()
        if self._busy or moment is None:
            return
        deadline = self._deadline
        if deadline is not None and moment > deadline:
            self._clock.jump(deadline)
            self._group.cancel_scope.cancel()
        else:
            self._clock.jump(moment)

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
        self._rest()

    def _note(self, live: _Live, state: TaskState, value: object, error: TaskError | None) -> None:
        task, map_index = live.instance.task, live.instance.map_index
        self._ended[task.node].append(
            TaskResult(task.task_id, state, live.attempt, value, error, map_index, tuple(live.logs))
        )

    def _emit(self, task_id: str, emits: Iterable[Emit | PublishedEvent]) -> None:
        for emit in emits:
            time = emit.time if isinstance(emit, PublishedEvent) else None
            self._emitted.append(
                DatasetEvent(
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
            )

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
