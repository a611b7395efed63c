"""A process pool: the runner processes of one kind, and the assignments that wait for them."""

import asyncio
import time
from collections.abc import Callable, Sequence

import anyio
import anyio.abc
import structlog

from pubsubflow.model.wire.messages import NO_NODE, Outcome, TaskError
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.log_lines import log_record
from pubsubflow.runner.protocol import RunnerSettings
from pubsubflow.worker.assignment import Assignment, AttemptOutcome, RunnerRef
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.processes.ahead import TasksAhead
from pubsubflow.worker.processes.attempt_results import AttemptResults
from pubsubflow.worker.processes.attempt_timers import AttemptTimers
from pubsubflow.worker.processes.dispatcher import Dispatcher
from pubsubflow.worker.processes.losses import RunAgain
from pubsubflow.worker.processes.runner_process import RunnerProcess
from pubsubflow.worker.processes.runner_set import RunnerSet
from pubsubflow.worker.processes.waiting import WaitingAssignments
from pubsubflow.worker.processes.watchdog import LoopWatchdog
from pubsubflow.worker.resources.confinement import Confinements
from pubsubflow.worker.result_publisher import ResultPublisher
from pubsubflow.worker.result_store import ResultStore
from pubsubflow.worker.settings import WorkerSettings
from pubsubflow.worker.source_cache import SourceCache

log = structlog.get_logger(__name__)

_AGAIN_TEXT = "the process of this task ended while others ran in it: the task begins again"


def _ignore(_: int) -> None:
    """Do nothing: the pool gets one assignment, whatever it has room for."""


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
        self._sync = runner_settings.kind == "sync"
        self._capacity = (
            settings.processes + settings.prefetch if self._sync else settings.async_slots
        )
        # An async process reports a task that does not stop after the first half of this time by
        # itself; only a blocked event loop needs the kill, which hits all tasks beside it.
        self._grace_seconds = settings.grace_seconds * (1 if self._sync else 2)
        self._sources = sources
        self._publisher = publisher
        self._on_returned = on_returned
        self._on_finished = on_finished
        self._loop = asyncio.get_running_loop()
        self._results = AttemptResults(
            runner_settings.worker,
            group,
            managers=managers,
            publisher=publisher,
            results=results,
            on_node_over=self._on_node_over,
            on_storing=self._on_storing,
            on_over=self._release,
            on_unbegun=self._on_unbegun,
        )
        self._runners = RunnerSet(
            settings,
            runner_settings,
            fork_server=fork_server,
            group=group,
            events=self._results,
            confinements=confinements,
            on_ready=self._on_runner_ready,
            on_exit=self._on_runner_exit,
        )
        self._waiting = WaitingAssignments(
            settings,
            runner_settings.worker,
            is_sync=self._sync,
            managers=managers,
            sources=sources,
            confinements=confinements,
            runners=self._runners,
            on_ready=self._dispatch,
            on_void=self._drop,
            on_failed=self._results.end,
            on_parked=on_parked,
            on_away=self._return_for,
            on_overdue=self._return_to_queue,
        )
        self._ahead = TasksAhead(
            settings, self._runners, on_capacity=on_capacity, on_late=self._take_back
        )
        self._timers = AttemptTimers(
            settings,
            is_sync=self._sync,
            on_started=self._publish_started,
            on_timeout=self._time_out,
        )
        self._dispatcher = Dispatcher(self._waiting, self._runners, self._ahead, self._timers)
        confinements.on_freed.append(self._dispatch)
        self._watchdog = LoopWatchdog(
            self._runners.all,
            group,
            on_blocked=lambda runner: self._take_back(runner.block()),
            on_unblocked=self._dispatch,
            on_output=publisher.add_output,
        )

    @property
    def capacity(self) -> int:
        """How many assignments may be here at once, with waiting ones that are not parked."""
        return self._capacity + self._ahead.extra

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
        return self._waiting.bundles | {runner.bundle for runner in self._runners.all}

    @property
    def slots(self) -> int:
        """How many assignments can run at once."""
        return self._runners.most if self._sync else self._runners.slots

    def submit(self, assignment: Assignment) -> None:
        """Queue an assignment; its lease and its code are fetched first where needed."""
        self._dispatcher.submit(assignment, self._sources.sources.get(assignment.header.source))

    def stop(self, assignment: Assignment, outcome: AttemptOutcome) -> None:
        """End an assignment with this outcome, and kill its runner if it does not stop in time."""
        # One whose result is being stored has succeeded.
        if assignment.decided_outcome is not None or assignment in self._results.uploads:
            return
        assignment.decided_outcome = outcome
        runner = assignment.runner
        if runner is None:
            self._waiting.pop(assignment)
            self._results.end(assignment, outcome)
            return
        unbegun = runner.stop(assignment)
        self._take_back(unbegun)
        if assignment not in unbegun:
            self._loop.call_later(self._grace_seconds, self._kill_if_running, assignment, runner)

    def maintain(self) -> None:
        """Retire runners that have long been idle or hold much memory; call it regularly."""
        self._runners.maintain()

    def drain(self) -> None:
        """Return what waits to the queue, and start no further node of a chain."""
        self._dispatcher.stop()
        for assignment in self._waiting:
            self._return_to_queue(assignment)
        for runner in self._runners.all:
            self._take_back(runner.drain())

    def kill_all(self) -> None:
        """Return what runs to the queue, and kill all runners."""
        self._dispatcher.stop()
        for assignment in self._results.uploads.give_up():
            self._return_to_queue(assignment)
        for runner in self._runners.all:
            for assignment in reversed(tuple(runner.assignments)):
                self._return_to_queue(assignment)
            runner.kill()

    def close(self) -> None:
        """Stop the timers."""
        self._timers.stop()
        self._waiting.close()
        self._ahead.stop()
        self._watchdog.close()

    def _dispatch(self) -> None:
        self._dispatcher.dispatch()

    def _on_runner_ready(self, runner: RunnerProcess) -> None:
        self._dispatcher.on_ready(runner)

    def _on_node_over(self, assignment: Assignment, then: int) -> None:
        """Continue with the next node of a chain, or with what waits."""
        if self._sync:
            self._ahead.count(time.time() - assignment.started_at)
        if then == NO_NODE:
            self._release(assignment)
            self._dispatch()
        else:
            assignment.advance(then)
            self._timers.start(assignment)

    def _on_storing(self, assignment: Assignment) -> None:
        self._detach(assignment)
        self._dispatch()

    def _on_unbegun(self, assignment: Assignment) -> None:
        self._take_back([assignment])

    def _drop(self, assignment: Assignment) -> None:
        """Give up an assignment whose task has ended elsewhere."""
        self._publisher.acknowledge(assignment)
        self._release(assignment)

    def _return_for(self, assignment: Assignment, seconds: float) -> None:
        """Return a message to its queue, which delivers it after some time, here or elsewhere."""
        self._publisher.return_to_queue(assignment, seconds)
        self._release(assignment)

    def _take_back(self, unbegun: Sequence[Assignment]) -> None:
        """Give assignments that do not begin in their runner to others; end those to be stopped."""
        # The last one first: none becomes the one that runs on the way.
        for assignment in reversed(unbegun):
            self._detach(assignment)
        left = []
        for assignment in unbegun:
            if assignment.decided_outcome is not None:
                self._results.end(assignment, assignment.decided_outcome)
            elif self._dispatcher.stopped:
                self._return_to_queue(assignment)
            else:
                left.append(assignment)
        self._waiting.put_back(left)

    def _on_runner_exit(self, runner: RunnerProcess, code: int) -> None:
        """Publish the outcome of what ended with a runner, and fork another if needed."""
        self._take_back(runner.unbegun())
        for assignment, then in runner.judge_losses(code):
            again = isinstance(then, RunAgain)
            log.warning("worker.runner_exited", **assignment.log_fields(), exit=code, again=again)
            if isinstance(then, AttemptOutcome):
                self._results.end(assignment, then)
            else:
                self._run_again(assignment, then)
        self._dispatch()

    def _run_again(self, assignment: Assignment, then: RunAgain) -> None:
        """Begin an attempt again that ended with its process, by another task's fault."""
        self._publisher.add_output(assignment, log_record("warning", _AGAIN_TEXT, {}))
        assignment.apart = assignment.apart or then.apart
        # The message's journal is out of date by now.
        assignment.redelivered = True
        self._on_unbegun(assignment)

    def _publish_started(self, assignment: Assignment) -> None:
        if not self._sync:
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

    def _return_to_queue(self, assignment: Assignment) -> None:
        self._waiting.pop(assignment)
        self._detach(assignment)
        self._on_returned(assignment)

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
