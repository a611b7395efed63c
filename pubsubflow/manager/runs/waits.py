"""Folds waits: tasks that defer, what happens meanwhile, and how they go on."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from pubsubflow.manager.unit_of_work import Ledger, LiveTask, RunWork, TaskKey
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.runs.waits import (
    START,
    Happening,
    Waiting,
    begin_wait,
    decode_waiting,
    encode_waiting,
    failure,
    happen,
    outcome,
    start_result,
)
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import FiredMessage, Outcome, ResultMessage, Step, TaskError

WAIT_ANEW = b""
"""In place of what a task waits for: its next attempt begins with its first wait."""

WAIT_TIMERS = ("wait", "wait_timeout", "task_timeout")
Finish = Callable[[ResultMessage], None]
HandOut = Callable[[RunWork, TaskKey, LiveTask, int], None]


class Deferring:
    """The waiting half of one batch's runs; decides by `model.waits`, writes nothing.

    Args:
        ledger: What the transaction changes.
        finish: Folds the end of an attempt, as if a worker had told it.
        hand_out: Hands a task out again.
    """

    def __init__(self, ledger: Ledger, *, finish: Finish, hand_out: HandOut) -> None:
        self._ledger = ledger
        self._finish = finish
        self._hand_out = hand_out

    def defer(self, run: RunWork, key: TaskKey, task: LiveTask, message: ResultMessage) -> None:
        """A task waits: it gives its slot back."""
        if task.started_at is None:
            task.started_at = datetime.fromtimestamp(message.started_at, UTC)
        task.worker, task.chained = None, False
        self._begin(run, key, task, decode_waiting(message.waiting))

    def start(self, run: RunWork, key: TaskKey, task: LiveTask) -> None:
        """A task has to wait before anything of it runs."""
        waiting = run.version.spec.tasks[key[0]].start
        if waiting is None:
            raise TypeError("a task that does not begin with a wait was started as one that does")
        task.started_at = self._ledger.now
        self._begin(run, key, task, waiting)

    def _begin(self, run: RunWork, key: TaskKey, task: LiveTask, asked: Waiting) -> None:
        waiting = begin_wait(asked, self._ledger.now.timestamp())
        task.state = TaskState.DEFERRED
        task.waiting = encode_waiting(waiting)
        task.changed = True
        for slot, wait in enumerate(waiting.waits):
            self._ledger.waits.append((run.number, *key, task.delivery, slot, wait))
            if wait.kind == "event":
                self._ledger.looks.append((run.number, *key))
            if wait.due_at is not None:
                self._set_timer(run, key, task, wait.due_at, "wait", slot)
        if waiting.timeout_at is not None:
            self._set_timer(run, key, task, waiting.timeout_at, "wait_timeout")
        seconds = run.version.spec.tasks[key[0]].timeout_seconds
        if seconds is not None and task.started_at is not None:
            due = task.started_at + timedelta(seconds=seconds)
            self._set_timer(run, key, task, due.timestamp(), "task_timeout")

    def _set_timer(
        self,
        run: RunWork,
        key: TaskKey,
        task: LiveTask,
        due: float,
        kind: str,
        slot: int | None = None,
    ) -> None:
        """Set a timer that counts as long as the task is not handed out again."""
        moment = datetime.fromtimestamp(due, UTC)
        cell = None if slot is None else str(slot)
        self._ledger.timers.append(
            Timer(moment, kind, run.version.dag, run.number, *key, task.delivery, cell)
        )

    def fired(self, message: FiredMessage) -> None:
        """A trigger has fired, or failed."""
        found = self._waiting((message.run, message.node, message.map_index), message.delivery)
        if found is None:
            return
        run, key, task, waiting = found
        if message.error is not None:
            if self._ledger.epochs.get(message.trigger) == message.epoch:
                self._go_on(run, key, task, waiting, failure(waiting, message.error))
            return
        payload = msgspec.Raw(message.payload)
        self.happened(run, key, task, waiting, Happening(message.slot, payload, message.id))

    def event(
        self, place: tuple[int, int, int], delivery: int, slot: int, info: bytes, number: int
    ) -> None:
        """An event that a task waits for has happened."""
        found = self._waiting(place, delivery)
        if found is not None:
            self.happened(*found, Happening(slot, msgspec.Raw(info), number=number))

    def due(self, timer: Timer) -> None:
        """A wait's time has come, or it has lasted too long."""
        found = self._waiting(
            (timer.run or 0, timer.node or 0, -1 if timer.map_index is None else timer.map_index),
            timer.attempt or 0,
        )
        if found is None:
            return
        run, key, task, waiting = found
        if timer.kind == "wait":
            self.happened(run, key, task, waiting, Happening(int(timer.cell or 0)))
        elif timer.kind == "wait_timeout":
            error = TaskError("WaitTimeout", f"{waiting.label} did not happen in time")
            self._go_on(run, key, task, waiting, failure(waiting, error))
        else:
            seconds = run.version.spec.tasks[key[0]].timeout_seconds
            text = f"timed out after {seconds:g} s, while it waited for {waiting.label}"
            self._fail(run, key, task, waiting, TaskError("TimeoutError", text))

    def _waiting(
        self, place: tuple[int, int, int], delivery: int
    ) -> tuple[RunWork, TaskKey, LiveTask, Waiting] | None:
        """Return the deferred task at a place, unless it is another wait's by now."""
        run = self._ledger.runs.get(place[0])
        key = place[1:]
        task = None if run is None or run.outcome is not None else run.live.get(key)
        if run is None or task is None or task.state is not TaskState.DEFERRED:
            return None
        if task.waiting is None or task.delivery != delivery:
            return None
        return run, key, task, decode_waiting(task.waiting)

    def happened(
        self, run: RunWork, key: TaskKey, task: LiveTask, waiting: Waiting, what: Happening
    ) -> None:
        """Note what happened; the task goes on when that is enough."""
        waiting = happen(waiting, what)
        step = outcome(waiting)
        if step is None:
            task.waiting = encode_waiting(waiting)
            task.changed = True
        else:
            self._go_on(run, key, task, waiting, step)

    def _go_on(
        self, run: RunWork, key: TaskKey, task: LiveTask, waiting: Waiting, step: Step
    ) -> None:
        """Record what came of a wait, and let the task go on."""
        spec = run.version.spec.tasks[key[0]]
        starting = waiting.key == START
        if starting and step.error is not None:
            self._fail(run, key, task, waiting, step.error)
            return
        self._ledger.steps.append((run.number, *key, step))
        if starting and spec.kind == "empty":
            self.stop(run, key, task)
            self._end(run, key, task, Outcome.SUCCESS, value=start_result(waiting, step.value))
            return
        started_at = task.started_at
        self.stop(run, key, task)
        self._hand_out(run, key, task, task.attempt)
        task.started_at = started_at

    def stop(self, run: RunWork, key: TaskKey, task: LiveTask, *, cancelled: bool = False) -> None:
        """Forget what a task waits for."""
        if task.waiting:
            task.waiting = None
            task.changed = True
            self._ledger.unwaited.append((run.number, *key, cancelled))

    def _fail(
        self, run: RunWork, key: TaskKey, task: LiveTask, waiting: Waiting, error: TaskError
    ) -> None:
        self.stop(run, key, task)
        if waiting.key == START:
            task.waiting = WAIT_ANEW
        self._end(run, key, task, Outcome.FAILED, error=error)

    def _end(
        self,
        run: RunWork,
        key: TaskKey,
        task: LiveTask,
        outcome: Outcome,
        *,
        value: bytes = b"",
        error: TaskError | None = None,
    ) -> None:
        """End an attempt here, as a worker would."""
        task.state = TaskState.RUNNING
        now = self._ledger.now.timestamp()
        started = now if task.started_at is None else task.started_at.timestamp()
        self._finish(
            ResultMessage(
                run.number,
                *key,
                task.attempt,
                task.delivery,
                "",
                outcome,
                started,
                now,
                value=value,
                error=error,
            )
        )
