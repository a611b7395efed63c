"""The driver of an in-process run: it takes the same decisions as the manager."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

import anyio

from pubsubflow.authoring.bind import TaskOutcome
from pubsubflow.authoring.runtime import results
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.runtime.inprocess import RunResult, TaskResult
from pubsubflow.authoring.runtime.journal import wait_error
from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.ids import new_id
from pubsubflow.model.runs.outlets import outlet_events
from pubsubflow.model.runs.progress import (
    Decision,
    finish_task,
    mapped_indexes,
    mapped_lengths,
    release_held,
    start_run,
)
from pubsubflow.model.runs.retry import RetryAt, after_failure
from pubsubflow.model.runs.rules.failing_fast import fail_fast
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.runs.waits import drop_failures, start_result
from pubsubflow.model.values.state import STATE_CONFLICT
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    EmittedEvent,
    EventInfo,
    Outcome,
    PublishedEvent,
    TaskError,
)
from pubsubflow.model.wire.outputs import decode_outputs, pushed_values
from pubsubflow.model.wire.waits import START, WaitSet
from pubsubflow.testing.attempts import (
    AttemptEnd,
    AttemptRunner,
    Execution,
    Instance,
    poll_timed_out,
    timed_out,
)
from pubsubflow.testing.callbacks import EndedAttempt
from pubsubflow.testing.clock import VirtualClock
from pubsubflow.testing.live_instance import LiveInstance
from pubsubflow.testing.output import log_lines, new_output
from pubsubflow.testing.results import ResultMissing
from pubsubflow.testing.run_inputs import RunInputs
from pubsubflow.testing.time_skipping import Sleeper, TimeSkipper
from pubsubflow.testing.waits import PendingWait, RunEventLog, describe_wait

_NO_CHANCE = 0.0


class Driver:
    """The driver of one run.

    Args:
        inputs: The run's inputs.
        attempts: Runs its attempts.
        clock: The clock on which delays pass.
        raise_on_error: Raise the exception of the first failed task.

    Attributes:
        endings: How tasks, and attempts that others follow, have ended, in order.
    """

    def __init__(
        self,
        inputs: RunInputs,
        attempts: AttemptRunner,
        clock: VirtualClock,
        *,
        raise_on_error: bool,
    ) -> None:
        self._inputs = inputs
        self._plan = inputs.plan
        self._attempts = attempts
        self._clock = clock
        self._raise_on_error = raise_on_error
        self._group = anyio.create_task_group()
        self._live: dict[tuple[int, int], LiveInstance] = {}
        self._ended: dict[int, list[TaskResult]] = {node: [] for node in sorted(inputs.chosen)}
        self.endings: list[EndedAttempt] = []
        self._emitted: list[DatasetEvent] = []
        self._published: set[str] = set()
        self._state: RunState | None = None if inputs.spec.tasks else RunState.SUCCESS
        self._raised: BaseException | None = None
        self._log = RunEventLog(inputs.now, inputs.consumed, inputs.future_events)
        seconds = inputs.spec.timeout_seconds
        self._time = TimeSkipper(
            clock,
            on_stuck=self._stuck,
            deadline=None if seconds is None else inputs.now + timedelta(seconds=seconds),
            on_deadline=self._group.cancel_scope.cancel,
        )

    async def run(self) -> RunResult:
        """Run all tasks and return the outcome.

        Raises:
            ResultMissing: A needed result is missing.
            KeyboardInterrupt: The user interrupts it.
            BaseException: A task's exception, with `raise_on_error`.
        """
        self._progress, decision = start_run(self._plan)
        async with self._group:
            seconds = self._inputs.spec.timeout_seconds
            if seconds is not None:
                self._group.cancel_scope.deadline = anyio.current_time() + seconds
            self._apply(decision)
        if self._raised is not None:
            raise self._raised
        return self._result()

    def _apply(self, decision: Decision) -> None:
        """Apply the consequences of a change of progress."""
        for node, map_index, state in decision.resolved:
            if node in self._inputs.chosen:
                self._resolve(node, map_index, state, decision.mapping_errors.get(node))
        for node in decision.held:
            # A run in a test is the first one: nothing is before it.
            self._apply(release_held(self._plan, self._progress, node))
        for node, map_index in decision.ready:
            live = LiveInstance(self._instance(node, map_index))
            self._live[node, map_index] = live
            self._time.start_work()
            self._group.start_soon(self._drive, live)
        if decision.ended is not None:
            self._state = decision.ended

    def _resolve(
        self, node: int, map_index: int, state: TaskState, mapping_error: str | None
    ) -> None:
        """Record a task that ended without running."""
        task = self._plan.spec.tasks[node]
        error = None
        if mapping_error is not None:
            error = TaskError("DefinitionError", mapping_error, final=True)
            self._report(
                DefinitionError(mapping_error, dag_id=self._plan.spec.dag_id, task_id=task.task_id)
            )
        self._ended[node].append(TaskResult(task.task_id, state, error=error, map_index=map_index))
        self.endings.append(EndedAttempt(node, map_index, 0, state, error))
        if state is TaskState.SUCCESS:
            self._emit(task.task_id, outlet_events(task.outlets))

    def _instance(self, node: int, map_index: int) -> Instance:
        task = self._plan.spec.tasks[node]
        sizes = mapped_lengths(self._plan, task, self._progress)
        if map_index == NOT_MAPPED or isinstance(sizes, str):
            return Instance(task)
        return Instance(task, map_index, mapped_indexes(sizes, map_index))

    async def _drive(self, live: LiveInstance) -> None:
        """Run an instance until it succeeds, no attempt is left, or it is stopped."""
        with live.scope:
            # One that is stopped before it has begun must not begin.
            await anyio.lowlevel.checkpoint_if_cancelled()
            await self._run_to_end(live)
        if live.scope.cancel_called:
            self._time.end_work()

    async def _run_to_end(self, live: LiveInstance) -> None:
        while True:
            live.attempt += 1
            live.worked = live.waited = 0.0
            ended = self._with_state(await self._attempt(live))
            if isinstance(ended.exception, ResultMissing | KeyboardInterrupt):
                self._stop(ended.exception)
                return
            if not await self._again(live, ended):
                break
        self._end(live, ended)

    def _with_state(self, ended: AttemptEnd) -> AttemptEnd:
        """Apply a success's changes of the state; return the failure if one conflicts."""
        if ended.finished is None or not ended.finished.state:
            return ended
        conflict = self._inputs.state.apply(ended.finished.state)
        if conflict is None:
            return ended
        error = TaskError(STATE_CONFLICT, conflict)
        return AttemptEnd(Outcome.FAILED, error=error, exception=RuntimeError(conflict))

    async def _attempt(self, live: LiveInstance) -> AttemptEnd:
        """Run one attempt, with all its waits."""
        ended = await self._start(live) or await self._execute(live)
        while ended.wait_set is not None:
            ended = await self._wait(live, ended.wait_set) or await self._execute(live)
        task = live.instance.task
        if task.poll is None or ended.error is None or ended.error.final:
            return ended
        late = live.waited + live.worked >= (task.timeout_seconds or float("inf"))
        return poll_timed_out(task) if late else ended

    async def _start(self, live: LiveInstance) -> AttemptEnd | None:
        """Wait for a task's start; return the end of the attempt if it ended there."""
        task = live.instance.task
        if task.start_wait is None or any(entry.key == START for entry in live.journal):
            return None
        self._now(live)
        ended = await self._wait(live, task.start_wait)
        if ended is None and task.kind == "empty":
            value = start_result(task.start_wait, live.journal[-1].value)
            return AttemptEnd(Outcome.SUCCESS, TaskOutcome(value, None, ()))
        return ended

    async def _execute(self, live: LiveInstance) -> AttemptEnd:
        """Run the function of a task from its top."""
        task = live.instance.task
        output = new_output()
        left = None
        if task.timeout_seconds is not None:
            left = task.timeout_seconds - live.waited - live.worked
        publish = partial(self._publish, task.task_id)
        now = partial(self._now, live)
        began = anyio.current_time()
        live.runs = True
        try:
            return await self._attempts.run(
                Execution(live.instance, live.attempt, output, publish, now, live.journal, left)
            )
        finally:
            live.runs = False
            live.worked += anyio.current_time() - began
            live.logs.extend(log_lines(output, live.attempt))

    async def _wait(self, live: LiveInstance, wait_set: WaitSet) -> AttemptEnd | None:
        """Wait and record the result; return the end of the attempt if it ended there."""
        task = live.instance.task
        began = self._clock.now()
        limit = None
        if task.timeout_seconds is not None:
            limit = began + timedelta(seconds=task.timeout_seconds - live.waited)
        live.wait_set = wait_set
        pending = PendingWait(
            wait_set,
            live.called,
            self._time,
            self._clock,
            self._log,
            connections=self._inputs.connections,
            dag_id=self._inputs.spec.dag_id,
            answers=self._inputs.answers,
        )
        entry = await pending.result(limit)
        live.wait_set = None
        live.waited += (self._clock.now() - began).total_seconds()
        self._time.reset_jumps()
        if entry is None and task.poll is not None:
            return poll_timed_out(task, wait_set.looks)
        if entry is None:
            return timed_out(task, f", while it waited for {wait_set.label}")
        if wait_set.key == START and entry.error is not None:
            raised = wait_error(entry.label, entry.error)
            return AttemptEnd(Outcome.FAILED, error=entry.error, exception=raised)
        live.journal.append(entry)
        return None

    def _now(self, live: LiveInstance) -> float:
        """Return the time, and remember when the task read it."""
        now = self._clock.now().timestamp()
        live.called = now, len(self._log)
        return now

    async def _again(self, live: LiveInstance, ended: AttemptEnd) -> bool:
        """Return whether a further attempt follows, after its delay."""
        if ended.outcome is not Outcome.FAILED or ended.error is None:
            return False
        decision = after_failure(
            live.instance.task.retry,
            live.attempt,
            final=ended.error.final,
            chance=_NO_CHANCE,
            now=self._clock.now(),
            wanted=ended.retry_after,
        )
        if not isinstance(decision, RetryAt):
            return False
        live.journal = list(drop_failures(live.journal))
        self.endings.append(live.ending(TaskState.UP_FOR_RETRY, ended.error))
        await self._time.sleep(Sleeper(), decision.at)
        self._time.reset_jumps()
        return True

    def _stuck(self, nothing_comes: bool) -> None:  # noqa: FBT001 - as it is called
        """End a run whose tasks wait for events that never happen."""
        waits = "; ".join(
            f"task {live.instance.task.task_id!r} waits for {describe_wait(live.wait_set)}"
            for live in self._live.values()
            if live.wait_set is not None
        )
        why = "which never happens here" if nothing_comes else "and time passes without end"
        self._stop(
            InvalidInput(
                f"{waits}, {why}; emit the event in a task, give it with events=, or give the wait "
                "a timeout"
            )
        )

    def _end(self, live: LiveInstance, ended: AttemptEnd) -> None:
        """Record the end of an instance and apply what follows."""
        task, map_index = live.instance.task, live.instance.map_index
        state = TaskState(ended.outcome.value)
        follow, length, value = None, None, None
        if ended.finished is not None:
            done = ended.finished
            follow, length, value = done.follow, done.length, results.decode(done.value)
            self._inputs.results.put(task.node, map_index, done.value)
            events = outlet_events(
                task.outlets, done.emits, follow=follow, published=done.published
            )
            self._emit(task.task_id, events)
        self._inputs.results.put_outputs(task.node, map_index, ended.outputs)
        del self._live[task.node, map_index]
        self._record(live, state, value, ended.error, ended.outputs, ended.map_name)
        if state is TaskState.FAILED and ended.exception is not None:
            self._report(ended.exception)
        key = (task.node, map_index)
        if state is TaskState.FAILED and self._plan.spec.fail_fast:
            decision = self._fail_fast(key)
        else:
            decision = finish_task(
                self._plan,
                self._progress,
                task.node,
                state,
                map_index=map_index,
                length=length,
                follow=follow,
            )
        # Before end_work(): time must not skip while the tasks that follow are not counted yet.
        self._apply(decision)
        self._time.end_work()

    def _fail_fast(self, key: tuple[int, int]) -> Decision:
        """Count a failure, and stop all else."""
        states = {each: live.state for each, live in self._live.items()}
        stopped, decision = fail_fast(self._plan, self._progress, key, states)
        for node, map_index, state in stopped:
            live = self._live.pop((node, map_index), None)
            if live is None:
                decision.resolved.append((node, map_index, state))
                continue
            live.scope.cancel()
            self._record(live, state, None, TaskError("FailFast", "another task has failed"))
        return decision

    def _record(
        self,
        live: LiveInstance,
        state: TaskState,
        value: object,
        error: TaskError | None,
        outputs: bytes = b"",
        map_name: str = "",
    ) -> None:
        task, map_index = live.instance.task, live.instance.map_index
        self.endings.append(live.ending(state, error))
        self._ended[task.node].append(
            TaskResult(
                task.task_id,
                state,
                live.attempt,
                value,
                error,
                map_index,
                tuple(live.logs),
                pushed_values(outputs),
                decode_outputs(outputs).rendered,
                map_name,
            )
        )

    def _emit(self, task_id: str, emits: Iterable[EmittedEvent | PublishedEvent]) -> None:
        for emit in emits:
            time = emit.time if isinstance(emit, PublishedEvent) else None
            event = EventInfo(
                str(new_id()),
                emit.uri,
                emit.extra,
                emit.partition,
                time or self._clock.now(),
                "task",
                self._inputs.run_id,
                self._plan.spec.dag_id,
                task_id,
            )
            self._emitted.append(DatasetEvent.of(event))
            self._log.add(event, self._clock.now())

    def _publish(self, task_id: str, event: PublishedEvent) -> None:
        """Record an event at once, unless an earlier attempt published it."""
        if event.key not in self._published:
            self._published.add(event.key)
            self._emit(task_id, (event,))

    def _report(self, error: BaseException) -> None:
        if self._raise_on_error:
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """End the run with an exception."""
        self._raised = self._raised or error
        self._group.cancel_scope.cancel()

    def _result(self) -> RunResult:
        error = None
        if self._state is None:
            seconds = self._inputs.spec.timeout_seconds or 0
            error = f"the run took longer than its timeout of {seconds:g} s"
            for live in self._live.values():
                self._record(
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
            self._inputs.now,
            self._clock.now(),
            error,
            self._inputs.state.values(),
        )
