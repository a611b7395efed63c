"""A process pool: the runner processes of one kind, and the assignments that wait for them."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.abc
import structlog

from pubsubflow.model.wire.messages import NO_NODE, Outcome, TaskError, decode_result
from pubsubflow.model.wire.stored_results import StoredResult
from pubsubflow.model.wire.worker_requests import LeaseRequest, LeaseStatus
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.log_lines import log_record
from pubsubflow.runner.protocol import RunnerSettings, StoredObjects
from pubsubflow.worker.assignment import Assignment, AttemptOutcome, RunnerRef
from pubsubflow.worker.attempt_timers import AttemptTimers
from pubsubflow.worker.losses import RunAgain
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.resources.confinement import Confinements
from pubsubflow.worker.resources.parking import Parking
from pubsubflow.worker.result_publisher import ResultPublisher
from pubsubflow.worker.result_store import ResultStore, ResultUploads
from pubsubflow.worker.runner_process import MOST_AHEAD, RunnerProcess
from pubsubflow.worker.runner_set import MeanDuration, RunnerSet
from pubsubflow.worker.settings import ResultStoreSettings, WorkerSettings
from pubsubflow.worker.source_cache import FetchedSource, SourceCache
from pubsubflow.worker.timeouts import TimeoutQueue
from pubsubflow.worker.watchdog import LoopWatchdog

log = structlog.get_logger(__name__)

_KEPT_OUTCOMES = (Outcome.SUCCESS, Outcome.SKIPPED)
_TAKEN_DELAY_SECONDS = 2.0
_AGAIN_TEXT = "the process of this task ended while others ran in it: the task begins again"
_LATE_SECONDS = 0.02
_ENVELOPE_BYTES = 16_384
"""Left of the largest message for all of a ResultMessage but the result."""


def _ignore(_: int) -> None:
    """Do nothing: the pool gets one assignment, whatever it has room for."""


def runner_settings(
    kind: str,
    worker: str,
    settings: WorkerSettings,
    results: ResultStoreSettings,
    *,
    max_payload: int,
) -> RunnerSettings:
    """Return what a worker's runners are forked with.

    Args:
        kind: `sync` or `async`.
        worker: Id of the worker.
        settings: Its settings.
        results: Where large results go.
        max_payload: The largest message of the bus, in bytes.
    """
    return RunnerSettings(
        kind=kind,
        worker=worker,
        max_result_bytes=max_payload - _ENVELOPE_BYTES,
        grace_seconds=settings.grace_seconds,
        max_log_bytes=settings.max_log_bytes,
        inline_bytes=results.inline_bytes,
        max_stored_bytes=results.max_bytes if results.store else 0,
    )


class ProcessPool:
    """Gives assignments to runner processes of one kind; forks and retires these.

    Args:
        settings: The worker's.
        runner_settings: What each runner gets at its start; names the kind of the pool.
        fork_server: Forks the runners.
        group: The task group in which they run.
        managers: Fetches leases, and forwards the tasks' requests.
        sources: Fetches code.
        publisher: Publishes results, events and output.
        confinements: What there is for tasks that declare resources.
        on_parked: Called with an assignment that waits for room, in whose place another may come.
        results: Stores and reads large results.
        on_returned: Called with an assignment that goes back to its queue.
        on_finished: Called with an assignment of which nothing is left to run.
        on_capacity: Called with how many more assignments may be here from now on, or fewer.

    Attributes:
        capacity: How many assignments may be here at once, with waiting ones that are not parked.
    """

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        runner_settings: RunnerSettings,
        fork_server: ForkServer,
        group: anyio.abc.TaskGroup,
        managers: ManagerClient,
        sources: SourceCache,
        publisher: ResultPublisher,
        confinements: Confinements,
        on_parked: Callable[[Assignment], None],
        results: ResultStore,
        on_returned: Callable[[Assignment], None],
        on_finished: Callable[[Assignment], None],
        on_capacity: Callable[[int], None] = _ignore,
    ) -> None:
        self._settings = settings
        self._runner_settings = runner_settings
        self.kind = runner_settings.kind
        self._sync = self.kind == "sync"
        each = settings
        self.capacity = each.processes + each.prefetch if self._sync else each.async_slots
        self._managers = managers
        self._sources = sources
        self._publisher = publisher
        self._parking = Parking(confinements, on_parked=on_parked, on_away=self._return_parked)
        confinements.on_freed.append(self._dispatch)
        self._uploads = ResultUploads(results, group, self._on_uploaded)
        self._on_returned = on_returned
        self._on_finished = on_finished
        self._on_capacity = on_capacity
        self._mean = MeanDuration()
        self._extra = 0
        self._ahead_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Assignment, FetchedSource | None] = {}
        self._runners = RunnerSet(
            settings,
            runner_settings,
            fork_server=fork_server,
            group=group,
            events=self,
            confinements=confinements,
            on_ready=self._on_runner_ready,
            on_exit=self._on_runner_exit,
        )
        self._closing = False
        self._timers = AttemptTimers(
            settings,
            is_sync=self._sync,
            on_started=self._publish_started,
            on_timeout=self._time_out,
        )
        self._wait_timeouts: TimeoutQueue[Assignment] = TimeoutQueue(
            settings.max_wait_seconds, self._return_overdue
        )
        self._watchdog = LoopWatchdog(
            self._runners.all,
            group,
            on_blocked=self._on_blocked,
            on_unblocked=self._dispatch,
            on_output=publisher.add_output,
        )

    @property
    def room(self) -> int:
        """How many more assignments may be here."""
        running = sum(len(runner.assignments) for runner in self._runners.all)
        return self.capacity - running - len(self._waiting)

    @property
    def busy(self) -> int:
        """How many assignments run."""
        return sum(min(len(each.assignments), self._runners.slots) for each in self._runners.all)

    @property
    def waiting(self) -> int:
        """How many assignments wait for a runner, or behind another one."""
        here = sum(len(runner.assignments) for runner in self._runners.all)
        return len(self._waiting) + here - self.busy

    @property
    def runners(self) -> int:
        """How many processes there are, with those that start or end."""
        return len(self._runners.all)

    @property
    def bundles(self) -> set[str]:
        """Hashes of the bundles that processes or waiting assignments use."""
        waiting = {source.bundle for source in self._waiting.values() if source is not None}
        return waiting | {runner.bundle for runner in self._runners.all}

    @property
    def slots(self) -> int:
        """How many assignments can run at once."""
        return self._runners.most if self._sync else self._runners.slots

    def submit(self, assignment: Assignment) -> None:
        """Queue an assignment; its lease and its code are fetched first where needed."""
        source = self._sources.sources.get(assignment.header.source)
        usual = not (self._waiting or assignment.redelivered or assignment.apart or self._closing)
        if usual and source is not None:
            runner = self._choose(source, ahead=True)
            if runner is not None:
                self._assign(assignment, runner, source)
                return
        self._waiting[assignment] = None
        assignment.waits_since = self._loop.time()
        if assignment.redelivered:
            # Another worker may have finished it, or may still run it: the managers know.
            request = LeaseRequest(*assignment.fence, self._runner_settings.worker)
            self._managers.fetch_lease(request, partial(self._on_lease, assignment))
        else:
            self._fetch_source(assignment)

    def stop(self, assignment: Assignment, outcome: AttemptOutcome) -> None:
        """End an assignment with this outcome, and kill its runner if it does not stop in time."""
        # One whose result is being stored has succeeded.
        if assignment.decided_outcome is not None or assignment in self._uploads:
            return
        assignment.decided_outcome = outcome
        runner = assignment.runner
        if runner is None:
            self._waiting.pop(assignment, None)
            self._end_attempt(assignment, outcome)
            return
        grace = self._settings.grace_seconds
        if self._sync:
            # A signal must not reach what would begin next.
            unbegun = runner.revoke()
            self._take_back([each for each in unbegun if each is not assignment])
            if assignment in unbegun:
                self._end_attempt(assignment, outcome)
                return
            # Its result may be on its way, and another task run: that is not to be hit.
            if not runner.has_ended(assignment):
                runner.kill(signal.SIGTERM)
        else:
            runner.cancel(assignment)
            # The runner reports a task that does not stop after the first half of this time by
            # itself; only a blocked event loop needs the kill, which hits all tasks beside it.
            grace *= 2
        self._loop.call_later(grace, self._kill_if_running, assignment, runner)

    def maintain(self) -> None:
        """Retire runners that have long been idle or hold much memory; call it regularly."""
        self._runners.maintain()

    def drain(self) -> None:
        """Return what waits to the queue, and start no further node of a chain."""
        self._closing = True
        for assignment in tuple(self._waiting):
            self._return_to_queue(assignment)
        for runner in self._runners.all:
            self._take_back(runner.revoke() if self._sync else [])
            runner.drain()

    def kill_all(self) -> None:
        """Return what runs to the queue, and kill all runners."""
        self._closing = True
        for assignment in self._uploads.give_up():
            self._return_to_queue(assignment)
        for runner in self._runners.all:
            for assignment in reversed(tuple(runner.assignments.values())):
                self._return_to_queue(assignment)
            runner.kill()

    def close(self) -> None:
        """Stop the timers."""
        self._timers.stop()
        self._wait_timeouts.stop()
        self._parking.close()
        self._watchdog.close()
        if self._ahead_timer is not None:
            self._ahead_timer.cancel()

    def on_output(self, assignment: Assignment, lines: str) -> None:
        """Publish output; called by runners."""
        self._publisher.add_output(assignment, lines)

    def on_request(self, request: bytes, reply: Callable[[bytes], None]) -> None:
        """Forward a task's request to the managers; called by runners."""
        self._managers.forward(request, reply)

    def on_publish(self, event: bytes, reply: Callable[[bytes], None]) -> None:
        """Publish a task's event; called by runners."""
        self._publisher.publish_event(event, reply)

    def on_result(self, assignment: Assignment, then: int, payload: bytes) -> None:
        """Publish the result of a node and continue the chain; called by runners."""
        outcome = assignment.decided_outcome
        # A task that succeeded before the order to stop reached it has succeeded.
        if outcome is not None:
            result = decode_result(payload)
            if result.outcome not in _KEPT_OUTCOMES:
                found = outcome.stopped_at(result.error)
                payload = assignment.encode_result(self._runner_settings.worker, found)
        self._publisher.publish_result(assignment, payload)
        if self._sync:
            self._count(time.time() - assignment.started_at)
        if then == NO_NODE:
            self._release(assignment)
            self._dispatch()
        else:
            assignment.advance(then)
            self._timers.start(assignment)

    def on_large_result(
        self, assignment: Assignment, payload: bytes, objects: StoredObjects
    ) -> None:
        """Store what is large of a node's result, then publish it; called by runners."""
        self._uploads.start(assignment, payload, objects)
        self._detach(assignment)
        self._dispatch()

    def _on_uploaded(self, assignment: Assignment, payload: bytes, error: str | None) -> None:
        if error is not None:
            failure = TaskError(type="ResultStoreUnavailable", message=error)
            self._end_attempt(assignment, AttemptOutcome(Outcome.FAILED, failure))
            return
        self._publisher.publish_result(assignment, payload)
        self._release(assignment)

    def on_fetch(self, stored: StoredResult, reply: Callable[[bytes], None]) -> None:
        """Read a stored result for a task; called by runners."""
        self._uploads.fetch(stored, reply)

    def on_unbegun(self, assignment: Assignment) -> None:
        """Give an assignment that has not begun in its runner to another; called by runners."""
        if assignment.decided_outcome is not None and self._sync:
            self._end_attempt(assignment, assignment.decided_outcome)
            return
        if self._closing:
            self._return_to_queue(assignment)
            return
        self._detach(assignment)
        self._waiting[assignment] = None
        self._fetch_source(assignment)

    def _on_blocked(self, runner: RunnerProcess) -> None:
        """Give what has not begun in a runner whose loop is blocked to others."""
        for assignment in runner.block():
            self.on_unbegun(assignment)

    def _on_lease(self, assignment: Assignment, lease: LeaseStatus) -> None:
        if assignment not in self._waiting:
            return  # it was cancelled or returned meanwhile
        if lease is LeaseStatus.FREE:
            self._fetch_source(assignment)
            return
        del self._waiting[assignment]
        if lease is LeaseStatus.VOID:
            self._publisher.acknowledge(assignment)
            self._release(assignment)
        else:
            self._return_for(assignment, _TAKEN_DELAY_SECONDS)

    def _fetch_source(self, assignment: Assignment) -> None:
        source = self._sources.sources.get(assignment.header.source)
        if source is not None:
            self._enqueue(assignment, source)
        else:
            on_source = partial(self._on_source, assignment)
            self._sources.fetch(assignment.header.source, on_source)

    def _on_source(self, assignment: Assignment, source: FetchedSource) -> None:
        if assignment not in self._waiting:
            return  # it was cancelled or returned meanwhile
        if source.error is not None:
            del self._waiting[assignment]
            failure = TaskError(type="SourceMissing", message=source.error)
            self._end_attempt(assignment, AttemptOutcome(Outcome.FAILED, failure))
        else:
            self._enqueue(assignment, source)

    def _enqueue(self, assignment: Assignment, source: FetchedSource) -> None:
        self._waiting[assignment] = source
        self._dispatch()
        if assignment.runner is not None:
            return
        if assignment.header.resources is not None:
            if not self._runners.has_own(assignment):
                self._parking.add(assignment, sum(each.parked for each in self._waiting))
        elif self._sync:
            self._wait_timeouts.add(assignment)

    def _return_parked(self, assignment: Assignment, seconds: float) -> None:
        if assignment in self._waiting and not self._runners.has_own(assignment):
            del self._waiting[assignment]
            self._return_for(assignment, seconds)

    def _return_for(self, assignment: Assignment, seconds: float) -> None:
        """Return a message to its queue, which delivers it after some time, here or elsewhere."""
        self._publisher.return_to_queue(assignment, seconds)
        self._release(assignment)

    def _dispatch(self) -> None:
        """Assign what waits to free runners, and fork more runners for the rest."""
        if not self._waiting or self._closing:
            return
        left: dict[str, list[Assignment]] = {}
        for assignment, source in tuple(self._waiting.items()):
            if source is None:
                continue
            if assignment.apart:
                self._runners.reserve(assignment)
                continue
            # One that waits too long for a process of its own code is not overtaken any more.
            is_owed = self._runners.is_owed(left)
            runner = None if is_owed else self._choose(source, ahead=not left)
            if runner is None:
                left.setdefault(source.process, []).append(assignment)
                continue
            del self._waiting[assignment]
            self._assign(assignment, runner, source)
        if left:
            self._runners.add(left)

    def _choose(self, source: FetchedSource, *, ahead: bool) -> RunnerProcess | None:
        """Return a free runner, or one in which the task waits for its turn if tasks are short."""
        runner = self._runners.choose(source)
        if runner is None and ahead and self._extra:
            runner = self._runners.choose_ahead(source)
        return runner

    def _assign(self, assignment: Assignment, runner: RunnerProcess, source: FetchedSource) -> None:
        runner.assign(assignment, source)
        if assignment.started_at:
            self._timers.start(assignment)
        elif self._ahead_timer is None:
            self._ahead_timer = self._loop.call_later(_LATE_SECONDS, self._take_back_late)

    def _count(self, seconds: float) -> None:
        """Count how long a task took: more of them are taken ahead while they are short."""
        self._mean.add(seconds)
        is_wanted = self._mean.is_short and self._settings.prefetch > 0
        extra = MOST_AHEAD * self._settings.processes if is_wanted else 0
        if extra != self._extra and not self._closing:
            more, self._extra = extra - self._extra, extra
            self.capacity += more
            self._on_capacity(more)

    def _take_back_late(self) -> None:
        """Take back what waits in a runner behind a task that turns out to be a long one."""
        self._ahead_timer = None
        for runner in self._runners.late():
            self._take_back(runner.revoke())
        if self._ahead_timer is None and any(
            len(runner.assignments) > self._runners.slots for runner in self._runners.all
        ):
            self._ahead_timer = self._loop.call_later(_LATE_SECONDS, self._take_back_late)

    def _take_back(self, unbegun: Sequence[Assignment]) -> None:
        """Give assignments that were sent ahead, and do not begin there, to free runners."""
        # The last one first: none becomes the one that runs on the way.
        for assignment in reversed(unbegun):
            self._detach(assignment)
            assignment.waits_since = self._loop.time()
        if self._closing:
            for assignment in unbegun:
                self._return_to_queue(assignment)
            return
        # They came before what waits already.
        self._waiting = dict.fromkeys(unbegun) | self._waiting
        for assignment in unbegun:
            self._fetch_source(assignment)

    def _on_runner_ready(self, runner: RunnerProcess) -> None:
        assignment = runner.reserved_for
        if assignment is not None:
            source = self._waiting.pop(assignment, None)
            if source is None:
                runner.retire()  # it was cancelled or returned meanwhile
            else:
                self._assign(assignment, runner, source)
        self._dispatch()

    def _on_runner_exit(self, runner: RunnerProcess, code: int) -> None:
        """Publish the outcome of what ended with a runner, and fork another if needed."""
        self._take_back(runner.unbegun())
        for assignment, then in runner.judge_losses(code):
            again = isinstance(then, RunAgain)
            log.warning("worker.runner_exited", **assignment.log_fields(), exit=code, again=again)
            if isinstance(then, AttemptOutcome):
                self._end_attempt(assignment, then)
            else:
                self._run_again(assignment, then)
        self._dispatch()

    def _run_again(self, assignment: Assignment, then: RunAgain) -> None:
        """Begin an attempt again that ended with its process, by another task's fault."""
        self._publisher.add_output(assignment, log_record("warning", _AGAIN_TEXT, {}))
        assignment.apart = assignment.apart or then.apart
        # The message's journal is out of date by now.
        assignment.redelivered = True
        self.on_unbegun(assignment)

    def _publish_started(self, assignment: Assignment) -> None:
        self._watchdog.wake()
        self._publisher.publish_started(assignment)

    def _time_out(self, assignment: Assignment, seconds: float) -> None:
        runner = assignment.runner
        if runner is not None and runner.is_blocked_by_other(assignment):
            # Its time was taken by another task: both begin again, each in another process.
            runner.kill()
            return
        error = TaskError("TimeoutError", f"timed out after {seconds:g} s", assignment.stack)
        self.stop(assignment, AttemptOutcome(Outcome.FAILED, error, over_time=True))
        if assignment.runner is not None and not self._sync:
            assignment.runner.kill()

    @staticmethod
    def _kill_if_running(assignment: Assignment, runner: RunnerRef) -> None:
        if assignment.runner is runner:
            runner.kill()

    def _return_overdue(self, assignment: Assignment) -> None:
        if assignment not in self._waiting:
            return
        if self._runners.starting:
            self._wait_timeouts.add(assignment)
        else:
            self._return_to_queue(assignment)

    def _return_to_queue(self, assignment: Assignment) -> None:
        self._waiting.pop(assignment, None)
        self._detach(assignment)
        self._on_returned(assignment)

    def _end_attempt(self, assignment: Assignment, outcome: AttemptOutcome) -> None:
        """Publish a result in the runner's place."""
        payload = assignment.encode_result(self._runner_settings.worker, outcome)
        self._publisher.publish_result(assignment, payload)
        self._release(assignment)

    def _release(self, assignment: Assignment) -> None:
        self._detach(assignment)
        self._on_finished(assignment)

    def _detach(self, assignment: Assignment) -> None:
        runner, assignment.runner = assignment.runner, None
        if assignment.timeout_timer is not None:
            assignment.timeout_timer.cancel()
        if runner is not None:
            following = runner.release(assignment)
            if following is not None:
                self._timers.start(following)
