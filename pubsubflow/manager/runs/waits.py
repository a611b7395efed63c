"""Waits of deferred tasks: what they wait for, what completes it, and what follows.

A wait that is over hands its task out again or ends the attempt; `WaitEnd` says which, and
`lifecycle` does it.
"""

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from pubsubflow.manager.unit_of_work import BegunWait, EndedWait, JournalRow, UnitOfWork
from pubsubflow.manager.working_state import InstanceKey, LiveTask, RunWork
from pubsubflow.model.runs.polling import poll_timeout, postponed_look, spread_look
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.runs.waits import (
    begin_wait,
    complete_wait,
    completed_entry,
    failed_entry,
    start_result,
)
from pubsubflow.model.spec import TaskSpec
from pubsubflow.model.stored.values import keep_unknown
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    FiredMessage,
    JournalEntry,
    Outcome,
    ResultMessage,
    TaskError,
    TaskKey,
)
from pubsubflow.model.wire.waits import (
    POLL,
    START,
    WaitCompletion,
    WaitSet,
    decode_wait_set,
    encode_wait_set,
)

WAIT_FROM_START = b""
"""In place of a wait set: the next attempt begins with the task's first wait."""

WAIT_TIMERS = ("wait", "wait_timeout", "task_timeout")


class WaitEnd(Struct, frozen=True):
    """The end of a wait.

    Attributes:
        result: How the attempt ends; None when the task is handed out again.
    """

    run: RunWork
    key: InstanceKey
    task: LiveTask
    result: ResultMessage | None = None


class TaskWaits:
    """The waits of one batch's runs; decides by `model.runs.waits`, and writes nothing."""

    def __init__(self, uow: UnitOfWork) -> None:
        self._uow = uow

    def defer(self, run: RunWork, key: InstanceKey, task: LiveTask, message: ResultMessage) -> None:
        """Defer a task that has given its slot back."""
        if task.started_at is None:
            task.started_at = datetime.fromtimestamp(message.started_at, UTC)
        task.worker, task.chained, task.direct = None, False, False
        self._begin(run, key, task, decode_wait_set(message.wait_set), message.wait_set)

    def start(self, run: RunWork, key: InstanceKey, task: LiveTask) -> None:
        """Defer a task before anything of it runs."""
        wait_set = run.version.spec.tasks[key[0]].start_wait
        if wait_set is None:
            raise TypeError("a task that does not begin with a wait was started as one that does")
        task.started_at = self._uow.now
        self._begin(run, key, task, wait_set)

    def _begin(
        self,
        run: RunWork,
        key: InstanceKey,
        task: LiveTask,
        wanted: WaitSet,
        received: bytes | None = None,
    ) -> None:
        """Begin the waits of a set, which a worker may have sent."""
        if wanted.key == POLL:
            wanted = spread_look(wanted, (run.id, *key))
        wait_set = begin_wait(wanted, self._uow.now.timestamp())
        task.enter(TaskState.DEFERRED)
        task.wait_set = encode_wait_set(wait_set)
        if received is not None:
            task.wait_set = keep_unknown(task.wait_set, received, WaitSet)
        for slot, wait in enumerate(wait_set.waits):
            self._uow.waits.begun.append(BegunWait(run.id, *key, task.delivery, slot, wait))
            if wait.kind == "event":
                # After the commit: events that are being recorded now are not visible yet.
                self._uow.waits.to_check.append((run.id, *key))
            if wait.due_at is not None:
                self._set_timer(run, key, task, wait.due_at, "wait", slot)
        if wait_set.timeout_at is not None:
            self._set_timer(run, key, task, wait_set.timeout_at, "wait_timeout")
        seconds = run.version.spec.tasks[key[0]].timeout_seconds
        if seconds is not None and task.started_at is not None:
            due = task.started_at + timedelta(seconds=seconds)
            self._set_timer(run, key, task, due.timestamp(), "task_timeout")

    def _set_timer(
        self,
        run: RunWork,
        key: InstanceKey,
        task: LiveTask,
        due: float,
        kind: str,
        slot: int | None = None,
    ) -> None:
        """Set a timer that counts as long as the task is not handed out again."""
        moment = datetime.fromtimestamp(due, UTC)
        name = None if slot is None else str(slot)
        self._uow.timers.append(
            Timer(moment, kind, run.version.dag, run.id, *key, task.delivery, name)
        )

    def trigger_fired(self, message: FiredMessage) -> WaitEnd | None:
        """Complete a wait by its trigger, or fail it."""
        found = self._deferred((message.run, message.node, message.map_index), message.delivery)
        if found is None:
            return None
        run, key, task, wait_set = found
        if message.error is not None:
            # The failure of a trigger that has been leased to another triggerer since is void.
            if self._uow.waits.lease_epochs.get(message.trigger) == message.epoch:
                entry = failed_entry(wait_set, message.error)
                return self._end(run, key, task, wait_set, entry)
            return None
        payload = msgspec.Raw(message.payload)
        completion = WaitCompletion(message.slot, payload, message.id)
        return self._complete(run, key, task, wait_set, completion)

    def event_recorded(
        self, task: TaskKey, delivery: int, slot: int, info: bytes, event: int
    ) -> WaitEnd | None:
        """Complete a wait by an event."""
        found = self._deferred(task, delivery)
        if found is None:
            return None
        return self._complete(*found, WaitCompletion(slot, msgspec.Raw(info), number=event))

    def timer_due(self, timer: Timer) -> WaitEnd | None:
        """Complete a wait whose time has come, or end one that has lasted too long."""
        index = NOT_MAPPED if timer.map_index is None else timer.map_index
        found = self._deferred((timer.run or 0, timer.node or 0, index), timer.attempt or 0)
        if found is None:
            return None
        run, key, task, wait_set = found
        spec = run.version.spec.tasks[key[0]]
        if timer.kind == "wait":
            if spec.poll is not None and wait_set.key == POLL:
                due, now = timer.due_at.timestamp(), self._uow.now.timestamp()
                later = postponed_look(spec.poll, wait_set, (run.id, *key), due, now)
                if later is not None:
                    self._set_timer(run, key, task, later, "wait", 0)
                    return None
            completion = WaitCompletion(int(timer.key or 0))
            return self._complete(run, key, task, wait_set, completion)
        if timer.kind == "wait_timeout":
            error = TaskError("WaitTimeout", f"{wait_set.label} did not happen in time")
            return self._end(run, key, task, wait_set, failed_entry(wait_set, error))
        seconds = spec.timeout_seconds
        if spec.poll is not None:
            outcome, error = poll_timeout(spec.poll, seconds, wait_set.looks)
            self.stop(run, key, task)
            result = self._result(run, key, task, outcome, error=error)
            return WaitEnd(run, key, task, result)
        text = f"timed out after {seconds:g} s, while it waited for {wait_set.label}"
        return self._fail(run, key, task, wait_set, TaskError("TimeoutError", text))

    def _deferred(
        self, task: TaskKey, delivery: int
    ) -> tuple[RunWork, InstanceKey, LiveTask, WaitSet] | None:
        """Return a deferred task, unless it has gone on or waits anew by now."""
        run = self._uow.runs.by_id.get(task[0])
        key = task[1:]
        live = None if run is None or run.outcome is not None else run.live.get(key)
        if run is None or live is None or live.state is not TaskState.DEFERRED:
            return None
        # The delivery fences waits as it fences attempts.
        if live.wait_set is None or live.delivery != delivery:
            return None
        return run, key, live, decode_wait_set(live.wait_set)

    def _complete(
        self,
        run: RunWork,
        key: InstanceKey,
        task: LiveTask,
        wait_set: WaitSet,
        completion: WaitCompletion,
    ) -> WaitEnd | None:
        """Note a completion; the wait is over when there are enough."""
        before, wait_set = task.wait_set, complete_wait(wait_set, completion)
        entry = completed_entry(wait_set)
        if entry is not None:
            return self._end(run, key, task, wait_set, entry)
        task.wait_set = encode_wait_set(wait_set)
        if before is not None:
            task.wait_set = keep_unknown(task.wait_set, before, WaitSet)
        task.changed = True
        return None

    def _end(
        self, run: RunWork, key: InstanceKey, task: LiveTask, wait_set: WaitSet, entry: JournalEntry
    ) -> WaitEnd:
        """Record what came of a wait; return what follows."""
        starting = wait_set.key == START
        if starting and entry.error is not None:
            return self._fail(run, key, task, wait_set, entry.error)
        self._uow.waits.journal.append(JournalRow(run.id, *key, entry))
        self.stop(run, key, task)
        if starting and run.version.spec.tasks[key[0]].kind == "empty":
            value = start_result(wait_set, entry.value)
            result = self._result(run, key, task, Outcome.SUCCESS, value=value)
            return WaitEnd(run, key, task, result)
        return WaitEnd(run, key, task)

    def stop(
        self, run: RunWork, key: InstanceKey, task: LiveTask, *, cancelled: bool = False
    ) -> None:
        """Drop what a task waits for, if it does."""
        if task.wait_set:
            task.wait_set = None
            task.changed = True
            self._uow.waits.ended.append(EndedWait(run.id, *key, cancelled))

    def _fail(
        self, run: RunWork, key: InstanceKey, task: LiveTask, wait_set: WaitSet, error: TaskError
    ) -> WaitEnd:
        self.stop(run, key, task)
        if wait_set.key == START:
            task.wait_set = WAIT_FROM_START
        # No code of the task runs that could raise anything else of these names.
        over = error.type in ("TimeoutError", "WaitTimeout")
        result = self._result(run, key, task, Outcome.FAILED, error=error, over_time=over)
        return WaitEnd(run, key, task, result)

    def _result(
        self,
        run: RunWork,
        key: InstanceKey,
        task: LiveTask,
        outcome: Outcome,
        *,
        value: bytes = b"",
        error: TaskError | None = None,
        over_time: bool = False,
    ) -> ResultMessage:
        """Return the end of an attempt, as a worker would report it."""
        now = self._uow.now.timestamp()
        started = now if task.started_at is None else task.started_at.timestamp()
        fence = (task.attempt, task.delivery)
        return ResultMessage(
            *(run.id, *key, *fence, "", outcome, started, now),
            value=value,
            error=error,
            over_time=over_time,
        )


def end_look(spec: TaskSpec, task: LiveTask, message: ResultMessage) -> ResultMessage:
    """Return the failure of a polling sensor's look; its timeout counts over all its looks."""
    limit = spec.timeout_seconds
    known = message.error is not None and message.error.final
    if spec.poll is None or limit is None or known:
        return message
    began = message.started_at if task.started_at is None else task.started_at.timestamp()
    if message.ended_at - began < limit:
        return message
    outcome, error = poll_timeout(spec.poll, limit, None)
    return msgspec.structs.replace(message, outcome=outcome, error=error)
