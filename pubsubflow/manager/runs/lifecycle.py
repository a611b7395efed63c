"""Lifecycle of runs: start, attempts and their ends, cancellation, time limits."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from pubsubflow.manager.runs.callbacks import call_for_run, call_for_task
from pubsubflow.manager.runs.events import TaskEvents, moment_of
from pubsubflow.manager.runs.retries import Retries
from pubsubflow.manager.runs.state_changes import apply_state
from pubsubflow.manager.runs.task_ends import (
    end_by_failure,
    end_live,
    end_unmade,
    remove_task,
)
from pubsubflow.manager.runs.waits import TaskWaits, WaitEnd, end_look
from pubsubflow.manager.spec_cache import DagVersion
from pubsubflow.manager.unit_of_work import FinishedAttempt, UnitOfWork
from pubsubflow.manager.working_state import (
    EndedTask,
    InstanceKey,
    LiveTask,
    RunWork,
)
from pubsubflow.model.runs.closing import close_run, has_teardowns_left
from pubsubflow.model.runs.fences import first_delivery
from pubsubflow.model.runs.progress import (
    Decision,
    Progress,
    finish_task,
    release_held,
    replace_queued,
    resume_run,
    start_run,
    take_unmade,
)
from pubsubflow.model.runs.states import RunState, TaskState, advance_state
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import (
    MAX_MAP_NAME,
    NO_NODE,
    NOT_MAPPED,
    CancelMessage,
    EmittedEvent,
    Outcome,
    ResultMessage,
    RunInfo,
    StartedMessage,
    TaskError,
)
from pubsubflow.store.database import printable

_FINAL = {
    Outcome.SUCCESS: TaskState.SUCCESS,
    Outcome.SKIPPED: TaskState.SKIPPED,
    Outcome.FAILED: TaskState.FAILED,
    Outcome.CRASHED: TaskState.FAILED,
    Outcome.CANCELLED: TaskState.CANCELLED,
}
_RETRIED = (Outcome.FAILED, Outcome.CRASHED, Outcome.LOST)


class RunLifecycle:
    """Changes the runs of one unit of work; decides by `model.runs`, and writes nothing.

    Args:
        uow: What the transaction changes.
        new_id: Gives ids to events.
        chance: Draws the jitter of retries, from 0 up to 1.

    Attributes:
        waits: The waits of their tasks.
        retries: Their further attempts.
        events: The events of their tasks.
    """

    def __init__(
        self, uow: UnitOfWork, *, new_id: Callable[[], str], chance: Callable[[], float]
    ) -> None:
        self._uow = uow
        self.waits = TaskWaits(uow)
        self.retries = Retries(uow, self.waits, chance)
        self.events = TaskEvents(uow, new_id)

    def start(
        self,
        run_id: int,
        version: DagVersion,
        encoded_info: bytes,
        info: RunInfo | None = None,
        reopened: tuple[Progress, Sequence[InstanceKey]] | None = None,
        *,
        source: str,
    ) -> None:
        """Start a run: hand out the tasks that wait for nothing.

        Args:
            run_id: The run.
            version: Its DAG's version.
            encoded_info: Its encoded RunInfo.
            info: The same, if it is at hand.
            reopened: For a run that had ended and of which tasks were cleared: its progress
                without them, and instances to run again.
            source: The bundle and version that it is pinned to.
        """
        if reopened is None:
            progress, decision = start_run(version.plan)
        else:
            progress, again = reopened
            decision = resume_run(version.plan, progress, again)
        run = RunWork(run_id, version, progress, encoded_info, info, source=source, new=True)
        self._uow.runs.by_id[run_id] = run
        seconds = version.spec.timeout_seconds
        if seconds is not None:
            due = self._uow.now + timedelta(seconds=seconds)
            self._uow.timers.append(Timer(due, "run_timeout", version.dag, run_id))
        self._apply(run, decision)
        # No task will end it.
        if not version.spec.tasks:
            self._close(run, RunState.SUCCESS)

    def resume(self, run: RunWork, again: Sequence[InstanceKey]) -> None:
        """Continue a live run without what was cleared."""
        self._apply(run, resume_run(run.version.plan, run.progress, again))

    def attempt_started(self, message: StartedMessage) -> None:
        """Note the worker of a task; one that was redelivered changes hands."""
        task = self._fenced(message)
        if task is None or (task.chained and task.worker != message.worker):
            return
        if task.state is not TaskState.RUNNING:
            if _is_first(task) and task.started_at is None:
                run = self._uow.runs.by_id[message.run]
                self._replace_queued(run, (message.node, message.map_index))
            task.enter(TaskState.RUNNING)
        task.worker = message.worker
        task.started_at = task.started_at or moment_of(message.started_at)
        task.changed = True

    def attempt_ended(self, message: ResultMessage) -> None:
        """Apply how an attempt ended; a result under a void fence changes nothing."""
        task = self._fenced(message)
        # Once it is handed out again it has an order of its own: its chain's result is void.
        if task is None or task.chained != (message.after != NO_NODE):
            return
        if task.chained and task.worker != message.worker:
            return
        self._end_attempt(self._uow.runs.by_id[message.run], task, message)

    def wait_ended(self, end: WaitEnd | None) -> None:
        """Hand out again a task whose wait is over, or end its attempt; None changes nothing."""
        if end is None:
            return
        if end.result is not None:
            self._end_attempt(end.run, end.task, end.result)
            return
        # A task's timeout counts from its first start, waits included.
        started_at = end.task.started_at
        self.retries.hand_out(end.run, end.key, end.task, end.task.attempt)
        end.task.started_at = started_at

    def _end_attempt(self, run: RunWork, task: LiveTask, message: ResultMessage) -> None:
        if message.state:
            message = apply_state(self._uow, run.version.dag, message)
        self._uow.outbox.attempts.append(FinishedAttempt(run, message))
        spec = run.version.spec.tasks[message.node]
        key = (message.node, message.map_index)
        # One that was seen to start was replaced then, and is not for a further attempt.
        queued = task.state is TaskState.QUEUED and _is_first(task)
        if spec.poll is not None and message.outcome is Outcome.FAILED:
            message = end_look(spec, task, message)
        if message.outcome is Outcome.DEFERRED:
            self.waits.defer(run, key, task, message)
            if queued:
                self._replace_queued(run, key)
            return
        if message.outcome in _RETRIED:
            if self.retries.retry(run, task, message):
                if queued and (task.state is TaskState.UP_FOR_RETRY or not _is_first(task)):
                    self._replace_queued(run, key)
                return
        elif message.outcome is Outcome.SUCCESS:
            self.events.emit(run, message, spec.outlets)
            if not spec.mapped:
                run.results[message.node] = message.value
        self._end_task(run, key, task, message)
        decision = self._count(run, message, replaced=not queued)
        self._apply(run, decision, chained=message)

    def _count(self, run: RunWork, message: ResultMessage, *, replaced: bool) -> Decision:
        """Count an instance that has ended, and decide what follows."""
        plan, state = run.version.plan, _FINAL[message.outcome]
        if state is TaskState.FAILED and plan.spec.fail_fast:
            return end_by_failure(self.waits, self._uow, run, message, replaced=replaced)
        return finish_task(
            plan,
            run.progress,
            message.node,
            state,
            map_index=message.map_index,
            length=message.length,
            follow=message.follow,
            replaced=replaced,
        )

    def _replace_queued(self, run: RunWork, key: InstanceKey) -> None:
        """Make the next instance of a mapped task, or group, for one that has left the queue."""
        plan = run.version.plan
        if run.progress.nodes[key[0]].unmade or key[0] in plan.group_of:
            self._apply(run, replace_queued(plan, run.progress, *key))

    def _apply(
        self, run: RunWork, decision: Decision, chained: ResultMessage | None = None
    ) -> None:
        """Carry out a decision.

        Args:
            run: The run concerned.
            decision: What follows.
            chained: The result after which a runner may have gone straight on.
        """
        run.changed = True
        if run.version.plan.past:
            self._note_past(run, decision)
        if decision.resolved:
            self._end_unstarted(run, decision)
        delivery = first_delivery(run.progress.clear_number, self._uow.epoch)
        for key in decision.ready:
            task = LiveTask(delivery=delivery, queued_at=self._uow.now)
            if chained is not None and key == (chained.then, NOT_MAPPED):
                # The runner is at it already; no order goes out.
                task.delivery = chained.delivery
                task.enter(TaskState.RUNNING)
                task.chained = True
                task.worker = chained.worker
                task.started_at = moment_of(chained.ended_at)
            elif run.version.spec.tasks[key[0]].start_wait is not None:
                self.waits.start(run, key, task)
            else:
                run.dispatch.append(key)
            run.live[key] = task
        if chained is not None and chained.then != NO_NODE and run.progress.clear_number:
            self._stop_chain(run, chained, decision)
        if decision.ended is not None:
            closing = run.progress.closing
            reason = run.progress.closing_reason if closing else None
            self._close(run, RunState(closing) if closing else decision.ended, reason)

    def _stop_chain(self, run: RunWork, result: ResultMessage, decision: Decision) -> None:
        """Stop a runner that went straight on with a task that has been marked meanwhile."""
        key = (result.then, NOT_MAPPED)
        if key not in decision.ready:
            order = CancelMessage(run.id, "marked", (key,), result.delivery + 1)
            self._uow.outbox.cancellations.append(order)

    def release(self, run: RunWork, node: int) -> None:
        """Start a task that waited for the previous run."""
        self._uow.waits.released.append((run.id, node))
        self._apply(run, release_held(run.version.plan, run.progress, node))

    def _note_past(self, run: RunWork, decision: Decision) -> None:
        """Note which tasks wait for the previous run, and that others may wait for this one."""
        waits = self._uow.waits
        waits.past_changed.append(run.id)
        for node in decision.held:
            # What the previous run is, and how far, is looked up in a transaction of its own: under
            # the lock of a run no other one is locked.
            waits.held.append((run.id, node))
            waits.past_to_check.append(run.id)

    def _end_unstarted(self, run: RunWork, decision: Decision) -> None:
        """End the tasks that never start; those that have nothing to run succeed and emit."""
        for node, map_index, state in decision.resolved:
            reason = decision.mapping_errors.get(node)
            error = TaskError("DefinitionError", reason, final=True) if reason else None
            run.ended_tasks.append(
                EndedTask(node, map_index, 0, state, ended_at=self._uow.now, error=error)
            )
            if run.version.spec.tasks[node].callbacks:
                call_for_task(self._uow, run, (node, map_index), 0, state, error)
            if state is TaskState.SUCCESS:
                for uri in run.version.spec.tasks[node].outlets:
                    self.events.record(run, EmittedEvent(uri), node, map_index)

    def _close(self, run: RunWork, outcome: RunState, error: str | None = None) -> None:
        run.outcome = advance_state(run.outcome or RunState.RUNNING, outcome)
        run.error = error
        run.uncounted = True
        if run.version.spec.callbacks:
            call_for_run(self._uow, run, run.outcome, error)

    def cancel(self, run: RunWork, reason: str, outcome: RunState = RunState.CANCELLED) -> None:
        """End a run: its live tasks are cancelled, the others never start.

        If a setup has succeeded, its teardown still runs, and the run ends then; to cancel it once
        more ends it at once.
        """
        plan, progress = run.version.plan, run.progress
        closes = bool(plan.scopes) and not progress.closing and has_teardowns_left(plan, progress)
        tasks = run.version.spec.tasks
        stopped = [key for key in run.live if not closes or tasks[key[0]].role != "teardown"]
        error = TaskError("Cancelled", reason, final=True)
        state, by_people = TaskState.CANCELLED, outcome is RunState.CANCELLED
        for key in stopped:
            end_live(self.waits, self._uow, run, key, state, error, cancelled=by_people)
        for key in take_unmade(run.progress):
            end_unmade(self._uow, run, (*key, state), error)
        if closes:
            if stopped:
                message = CancelMessage(run.id, reason, tuple(stopped))
                self._uow.outbox.cancellations.append(message)
            progress.closing, progress.closing_reason = outcome, reason
            self._apply(run, close_run(plan, progress))
            return
        run.dispatch.clear()
        run.cancelled = True
        run.changed = True
        self._close(run, outcome, reason)

    def time_out(self, timer: Timer) -> None:
        """Fail a run that has outlived its DAG's timeout."""
        run = self._uow.runs.by_id.get(timer.run or 0)
        if run is not None and run.outcome is None:
            seconds = run.version.spec.timeout_seconds
            self.cancel(
                run, f"the run took longer than its timeout of {seconds:g} s", RunState.FAILED
            )

    def worker_lost(self, worker: str) -> None:
        """Hand out again what a lost worker went straight on with, or was given directly."""
        for run in self._uow.runs.by_id.values():
            for key, task in run.live.items():
                # All others have a message in the stream, which comes again by itself.
                if (task.chained or task.direct) and task.worker == worker:
                    self.retries.hand_out(run, key, task, task.attempt)

    def _fenced(self, message: ResultMessage | StartedMessage) -> LiveTask | None:
        """Return the task of a message if its attempt and delivery are the present ones."""
        run = self._uow.runs.by_id.get(message.run)
        if run is None or run.outcome is not None:
            return None
        task = run.live.get((message.node, message.map_index))
        if task is None or (task.attempt, task.delivery) != (message.attempt, message.delivery):
            return None
        return task if task.state in (TaskState.QUEUED, TaskState.RUNNING) else None

    def _end_task(
        self, run: RunWork, key: InstanceKey, task: LiveTask, message: ResultMessage
    ) -> None:
        remove_task(run, key, task)
        if message.map_name:
            name = printable(message.map_name)[:MAX_MAP_NAME]
            self._uow.runs.named.append((run.id, *key, name))
        if message.outcome is Outcome.SUCCESS and message.node in run.version.plan.group_of:
            run.instance_results[key] = message.value
        started_at = task.started_at or moment_of(message.started_at)
        run.ended_tasks.append(
            EndedTask(
                *key,
                task.attempt,
                advance_state(task.state, _FINAL[message.outcome]),
                message.worker or None,
                # A chained one was never queued: its row is made after it has started.
                started_at if task.chained else task.queued_at,
                started_at,
                moment_of(message.ended_at),
                message.length,
                message.value or None,
                message.outputs or None,
                message.error,
                message.peak_memory or None,
            )
        )
        if run.version.spec.tasks[message.node].callbacks:
            final = _FINAL[message.outcome]
            call_for_task(self._uow, run, key, task.attempt, final, message.error)


def _is_first(task: LiveTask) -> bool:
    """Whether it is a task's first attempt, or the first since it was cleared."""
    return task.attempt - task.prior_attempts == 1
