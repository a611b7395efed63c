"""Further attempts of tasks: retries by their policy, and orders that are given out again."""

from collections.abc import Callable

from msgspec import Struct

from pubsubflow.manager.runs.callbacks import call_for_task
from pubsubflow.manager.runs.events import moment_of
from pubsubflow.manager.runs.waits import TaskWaits
from pubsubflow.manager.unit_of_work import AttemptRow, UnitOfWork
from pubsubflow.manager.working_state import InstanceKey, LiveTask, RunWork
from pubsubflow.model.runs.retry import (
    GiveUp,
    Redeliver,
    RetryAt,
    after_crash,
    after_failure,
    retries_time_limit,
)
from pubsubflow.model.runs.states import TaskState
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import NOT_MAPPED, Outcome, ResultMessage


class Retries(Struct, frozen=True):
    """Hands tasks of the runs of one unit of work out again.

    Attributes:
        uow: What the transaction changes.
        waits: The waits of tasks.
        chance: Draws the jitter of retries, from 0 up to 1.
    """

    uow: UnitOfWork
    waits: TaskWaits
    chance: Callable[[], float]

    def retry_due(self, timer: Timer) -> None:
        """Hand out the next attempt of a task whose delay is over."""
        run = self.uow.runs.by_id.get(timer.run or 0)
        key = (timer.node or 0, NOT_MAPPED if timer.map_index is None else timer.map_index)
        task = run.live.get(key) if run is not None else None
        if run is None or task is None or task.state is not TaskState.UP_FOR_RETRY:
            return
        if task.attempt == timer.attempt:
            self._next_attempt(run, key, task)

    def retry(self, run: RunWork, task: LiveTask, message: ResultMessage) -> bool:
        """Try a failed attempt again, if its policy says so."""
        policy = run.version.spec.tasks[message.node].retry
        key = (message.node, message.map_index)
        now, chance = self.uow.now, self.chance()
        # Attempts before a clearing cost no retry.
        tries = task.attempt - task.prior_attempts
        verdict: RetryAt | Redeliver | GiveUp
        if message.outcome is Outcome.LOST:
            verdict = Redeliver()
        elif message.outcome is Outcome.CRASHED:
            task.crashes += 1
            verdict = after_crash(policy, tries, task.crashes, chance=chance, now=now)
        else:
            final = message.error is not None and message.error.final
            # Its runner was stopped and could not decide.
            final = final or (message.over_time and not retries_time_limit(policy))
            wanted = message.retry_after
            verdict = after_failure(
                policy, tries, final=final, chance=chance, now=now, wanted=wanted
            )
        if not isinstance(verdict, RetryAt | Redeliver):
            return False
        times = (moment_of(message.started_at), moment_of(message.ended_at))
        fence = (task.attempt, task.delivery)
        self.uow.runs.attempts.append(
            AttemptRow(
                *(run.id, *key, *fence, message.worker, *times, message.error),
                message.peak_memory or None,
            )
        )
        if isinstance(verdict, Redeliver):
            self.hand_out(run, key, task, task.attempt)
            return True
        self.uow.waits.retried.append((run.id, *key))
        if run.version.spec.tasks[message.node].callbacks:
            retry = TaskState.UP_FOR_RETRY
            call_for_task(self.uow, run, key, task.attempt, retry, message.error)
        # Without a delay a timer would only cost a transaction.
        if verdict.at <= now:
            self._next_attempt(run, key, task)
        else:
            task.enter(TaskState.UP_FOR_RETRY)
            task.chained, task.direct, task.worker = False, False, None
            self.uow.timers.append(
                Timer(verdict.at, "retry", run.version.dag, run.id, *key, task.attempt)
            )
        return True

    def _next_attempt(self, run: RunWork, key: InstanceKey, task: LiveTask) -> None:
        """Begin a task's next attempt; one that has to wait before it begins waits anew."""
        waits_first, task.wait_set = task.wait_set is not None, None
        self.hand_out(run, key, task, task.attempt + 1)
        if waits_first:
            run.dispatch.remove(key)
            self.waits.start(run, key, task)

    def hand_out(self, run: RunWork, key: InstanceKey, task: LiveTask, attempt: int) -> None:
        """Hand a task out again, under a delivery that no earlier chain through it had."""
        task.enter(TaskState.QUEUED)
        task.attempt, task.delivery = attempt, task.delivery + 1
        task.chained, task.direct = False, False
        task.worker, task.started_at = None, None
        run.dispatch.append(key)
