"""Folds what workers say into the runs: starts, endings, retries, deaths."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pubsubflow.manager.outbox.spans import context_of
from pubsubflow.manager.runs.waits import Deferring
from pubsubflow.manager.spec_cache import Version
from pubsubflow.manager.unit_of_work import (
    EndedTask,
    Ledger,
    LiveTask,
    LoggedEvent,
    RunWork,
    TaskKey,
)
from pubsubflow.model.runs.clearing import first_delivery
from pubsubflow.model.runs.outlets import news
from pubsubflow.model.runs.progress import Progress, Steps, begin, finish, go_on
from pubsubflow.model.runs.retry import Redeliver, Retry, after_crash, after_failure
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import (
    NO_NODE,
    NOT_MAPPED,
    Emit,
    EventInfo,
    LogMessage,
    Outcome,
    ResultMessage,
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


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Running:
    """Changes the runs of one ledger; decides by `model`, writes nothing.

    Attributes:
        deferring: The half that folds waits.
    """

    def __init__(
        self, ledger: Ledger, *, new_id: Callable[[], UUID], chance: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._new_id = new_id
        self._chance = chance
        self.deferring = Deferring(ledger, finish=self.finished, hand_out=self._hand_out)

    def start(self, number: int, version: Version, info: bytes) -> None:
        """Start a run: hand out the tasks that wait for nothing."""
        progress, steps = begin(version.plan)
        self._open(RunWork(number, version, progress, info, new=True), steps)

    def resume(
        self,
        number: int,
        version: Version,
        info: bytes,
        progress: Progress,
        again: Sequence[TaskKey],
    ) -> None:
        """Open a run again that had ended: tasks of it were cleared."""
        steps = go_on(version.plan, progress, again)
        self._open(RunWork(number, version, progress, info, new=True), steps)

    def go_on(self, run: RunWork, again: Sequence[TaskKey]) -> None:
        """Let a live run go on without what was cleared."""
        self.take(run, go_on(run.version.plan, run.progress, again))

    def _open(self, run: RunWork, steps: Steps) -> None:
        version = run.version
        self._ledger.runs[run.number] = run
        seconds = version.spec.timeout_seconds
        if seconds is not None:
            due = self._ledger.now + timedelta(seconds=seconds)
            self._ledger.timers.append(Timer(due, "run_timeout", version.dag, run.number))
        self.take(run, steps)
        if not version.spec.tasks:
            self.close(run, RunState.SUCCESS)

    def started(self, message: StartedMessage) -> None:
        """A task runs: note its worker. One that was redelivered changes hands."""
        task = self._fenced(message)
        if task is None or (task.chained and task.worker != message.worker):
            return
        if task.state in (TaskState.QUEUED, TaskState.RUNNING):
            task.state = TaskState.RUNNING
            task.worker = message.worker
            task.started_at = task.started_at or _moment(message.started_at)
            task.changed = True

    def logged(self, message: LogMessage) -> None:
        """Keep a piece of output, whoever owns the task: it did happen."""
        self._ledger.logs.append(
            (
                message.run,
                message.node,
                message.map_index,
                message.attempt,
                message.delivery,
                message.sequence,
                message.text.replace("\x00", "\\u0000"),
            )
        )

    def too_early(self, message: ResultMessage) -> bool:
        """Whether a chained result overtook one before it, which is still to come.

        That one is live with the same delivery: later ones are another chain's.
        """
        run = self._ledger.runs.get(message.run)
        if message.after == NO_NODE or run is None or (message.node, NOT_MAPPED) in run.live:
            return False
        for node in run.line_before(message.node):
            task = run.live.get((node, NOT_MAPPED))
            if task is not None:
                foreign = task.chained and task.worker != message.worker
                return task.delivery == message.delivery and not foreign
        return False

    def finished(self, message: ResultMessage) -> None:
        """Fold how an attempt ended; a void fence changes nothing."""
        task = self._fenced(message)
        if task is None or task.chained != (message.after != NO_NODE):
            return
        if task.chained and task.worker != message.worker:
            return
        run = self._ledger.runs[message.run]
        self._ledger.finished.append((run, message))
        spec = run.version.spec.tasks[message.node]
        if message.outcome is Outcome.DEFERRED:
            self.deferring.defer(run, (message.node, message.map_index), task, message)
            return
        if message.outcome is Outcome.FAILED or message.outcome is Outcome.CRASHED:
            if self._again(run, task, message):
                return
        elif message.outcome is Outcome.SUCCESS:
            self._emit(run, message, spec.outlets)
            if not spec.mapped:
                run.values[message.node] = message.value
        self._end(run, (message.node, message.map_index), task, message)
        steps = finish(
            run.version.plan,
            run.progress,
            message.node,
            _FINAL[message.outcome],
            length=message.length,
            follow=message.follow,
        )
        self.take(run, steps, chained=message)

    def take(self, run: RunWork, steps: Steps, chained: ResultMessage | None = None) -> None:
        """Carry out what a decision asks for.

        Args:
            run: The run concerned.
            steps: The decision.
            chained: The result after which a runner may have gone straight on.
        """
        run.changed = True
        for node, map_index, state in steps.settled:
            reason = steps.bad_maps.get(node)
            error = TaskError("DefinitionError", reason, final=True) if reason else None
            run.ended_tasks.append(
                EndedTask(node, map_index, 0, state, ended_at=self._ledger.now, error=error)
            )
            if state is TaskState.SUCCESS:
                for uri in run.version.spec.tasks[node].outlets:
                    self._record(run, Emit(uri), node, map_index)
        delivery = first_delivery(run.progress.cleared)
        for key in steps.ready:
            task = LiveTask(delivery=delivery, queued_at=self._ledger.now)
            if chained is not None and key == (chained.then, NOT_MAPPED):
                task.delivery = chained.delivery
                task.state = TaskState.RUNNING
                task.chained = True
                task.worker = chained.worker
                task.started_at = _moment(chained.ended_at)
            elif run.version.spec.tasks[key[0]].start is not None:
                self.deferring.start(run, key, task)
            else:
                run.dispatch.append(key)
            run.live[key] = task
        if steps.ended is not None:
            self.close(run, steps.ended)

    def close(self, run: RunWork, outcome: RunState, error: str | None = None) -> None:
        """End a run."""
        run.outcome = outcome
        run.error = error

    def cancel(self, run: RunWork, reason: str, outcome: RunState = RunState.CANCELLED) -> None:
        """End a run at once: its live tasks are cancelled, the others never start."""
        for key, task in list(run.live.items()):
            self.deferring.stop(run, key, task, cancelled=outcome is RunState.CANCELLED)
            self._remove(run, key, task)
            run.ended_tasks.append(
                EndedTask(
                    *key,
                    task.attempt,
                    TaskState.CANCELLED,
                    task.worker,
                    task.queued_at,
                    task.started_at,
                    self._ledger.now,
                    error=TaskError("Cancelled", reason, final=True),
                )
            )
        run.dispatch.clear()
        run.cancelled = True
        run.changed = True
        self.close(run, outcome, reason)

    def retry_due(self, timer: Timer) -> None:
        """A task's delay is over: hand out its next attempt."""
        run = self._ledger.runs.get(timer.run or 0)
        key = (timer.node or 0, NOT_MAPPED if timer.map_index is None else timer.map_index)
        task = run.live.get(key) if run is not None else None
        if run is None or task is None or task.state is not TaskState.UP_FOR_RETRY:
            return
        if task.attempt != timer.attempt:
            return
        self._try_again(run, key, task)

    def run_late(self, timer: Timer) -> None:
        """A run has outlived its DAG's timeout."""
        run = self._ledger.runs.get(timer.run or 0)
        if run is not None and run.outcome is None:
            seconds = run.version.spec.timeout_seconds
            self.cancel(
                run, f"the run took longer than its timeout of {seconds:g} s", RunState.FAILED
            )

    def worker_gone(self, worker: str) -> None:
        """Hand out again what a dead worker went straight on with: no message covers that."""
        for run in self._ledger.runs.values():
            for key, task in run.live.items():
                if task.chained and task.worker == worker:
                    self._hand_out(run, key, task, task.attempt)

    def _fenced(self, message: ResultMessage | StartedMessage) -> LiveTask | None:
        run = self._ledger.runs.get(message.run)
        if run is None or run.outcome is not None:
            return None
        task = run.live.get((message.node, message.map_index))
        if task is None or (task.attempt, task.delivery) != (message.attempt, message.delivery):
            return None
        return task if task.state in (TaskState.QUEUED, TaskState.RUNNING) else None

    def _again(self, run: RunWork, task: LiveTask, message: ResultMessage) -> bool:
        """Try a failed attempt again, if its policy says so."""
        policy = run.version.spec.tasks[message.node].retry
        key = (message.node, message.map_index)
        now, chance = self._ledger.now, self._chance()
        tries = task.attempt - task.base
        if message.outcome is Outcome.CRASHED:
            task.crashes += 1
            verdict = after_crash(policy, tries, task.crashes, chance=chance, now=now)
        else:
            final = message.error is not None and message.error.final
            verdict = after_failure(policy, tries, final=final, chance=chance, now=now)
        if not isinstance(verdict, Retry | Redeliver):
            return False
        self._ledger.attempts.append(
            (
                run.number,
                *key,
                task.attempt,
                task.delivery,
                message.worker,
                _moment(message.started_at),
                _moment(message.ended_at),
                message.error,
            )
        )
        if isinstance(verdict, Redeliver):
            self._hand_out(run, key, task, task.attempt)
            return True
        self._ledger.retried.append((run.number, *key))
        if verdict.at <= now:
            self._try_again(run, key, task)
        else:
            task.state = TaskState.UP_FOR_RETRY
            task.chained, task.worker, task.changed = False, None, True
            self._ledger.timers.append(
                Timer(verdict.at, "retry", run.version.dag, run.number, *key, task.attempt)
            )
        return True

    def _try_again(self, run: RunWork, key: tuple[int, int], task: LiveTask) -> None:
        """Begin a task's next attempt; one that had not begun waits anew."""
        begun, task.waiting = task.waiting is None, None
        self._hand_out(run, key, task, task.attempt + 1)
        if not begun:
            run.dispatch.remove(key)
            self.deferring.start(run, key, task)

    def _hand_out(self, run: RunWork, key: tuple[int, int], task: LiveTask, attempt: int) -> None:
        """Hand a task out again, under a delivery that no earlier chain through it had."""
        task.attempt, task.delivery = attempt, task.delivery + 1
        task.state, task.chained, task.worker, task.started_at = TaskState.QUEUED, False, None, None
        task.changed = True
        run.dispatch.append(key)

    def _remove(self, run: RunWork, key: tuple[int, int], task: LiveTask) -> None:
        del run.live[key]
        if task.stored:
            run.removed.append(key)
        if key in run.dispatch:
            run.dispatch.remove(key)

    def _end(
        self, run: RunWork, key: tuple[int, int], task: LiveTask, message: ResultMessage
    ) -> None:
        self._remove(run, key, task)
        run.ended_tasks.append(
            EndedTask(
                *key,
                task.attempt,
                _FINAL[message.outcome],
                message.worker or None,
                task.queued_at,
                task.started_at or _moment(message.started_at),
                _moment(message.ended_at),
                message.length,
                message.value or None,
                message.error,
            )
        )

    def _emit(self, run: RunWork, message: ResultMessage, outlets: tuple[str, ...]) -> None:
        """Record a success's events: what it emitted, and one for each other outlet."""
        told = news(outlets, message.emits, follow=message.follow, published=message.published)
        for emit in told:
            self._record(run, emit, message.node, message.map_index, message)

    def _record(
        self,
        run: RunWork,
        emit: Emit,
        node: int,
        map_index: int,
        message: ResultMessage | None = None,
    ) -> None:
        spec = run.version.spec
        event_id = self._new_id()
        self._ledger.events.append(
            LoggedEvent(
                event_id,
                EventInfo(
                    str(event_id),
                    emit.uri,
                    emit.extra,
                    None if emit.partition is None else printable(emit.partition),
                    self._ledger.now,
                    "task",
                    run.facts.run_id,
                    spec.dag_id,
                    spec.tasks[node].task_id,
                    context_of(run.facts, message),
                ),
                run.number,
                node,
                map_index,
                trail=(*run.facts.trail, run.version.dag),
                accepted_at=self._ledger.now if message is None else _moment(message.ended_at),
            )
        )
