"""The dispatcher decides which assignment goes to which process, and when."""

from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.processes.ahead import TasksAhead
from pubsubflow.worker.processes.attempt_timers import AttemptTimers
from pubsubflow.worker.processes.runner_process import RunnerProcess
from pubsubflow.worker.processes.runner_set import RunnerSet
from pubsubflow.worker.processes.waiting import WaitingAssignments
from pubsubflow.worker.source_cache import FetchedSource


class Dispatcher:
    """Gives what waits to processes, and has more of them forked for the rest.

    Args:
        waiting: What waits.
        runners: The processes.
        ahead: Says which of them get tasks ahead.
        timers: Started for what begins.

    Attributes:
        stopped: Whether nothing begins any more.
    """

    def __init__(
        self,
        waiting: WaitingAssignments,
        runners: RunnerSet,
        ahead: TasksAhead,
        timers: AttemptTimers,
    ) -> None:
        self._waiting = waiting
        self._runners = runners
        self._ahead = ahead
        self._timers = timers
        self.stopped = False

    def submit(self, assignment: Assignment, source: FetchedSource | None) -> None:
        """Give an assignment that has come to a process at once, or have it wait.

        Args:
            assignment: The assignment.
            source: Its code, if that is here.
        """
        doubtful = assignment.redelivered or assignment.apart
        if source is not None and not (self._waiting or doubtful or self.stopped):
            runner = self._choose(source, may_queue=True)
            if runner is not None:
                self._assign(assignment, runner, source)
                return
        self._waiting.add(assignment)

    def dispatch(self) -> None:
        """Give what waits to free processes, and have more forked for the rest."""
        if not self._waiting or self.stopped:
            return
        left: dict[str, list[Assignment]] = {}
        for assignment, source in self._waiting.ready:
            if assignment.apart:
                self._runners.reserve(assignment)
                continue
            # One that waits too long for a process of its own code is not overtaken any more.
            is_owed = self._runners.is_owed(left)
            runner = None if is_owed else self._choose(source, may_queue=not left)
            if runner is None:
                left.setdefault(source.process, []).append(assignment)
                continue
            self._waiting.pop(assignment)
            self._assign(assignment, runner, source)
        if left:
            self._runners.add(left)

    def on_ready(self, runner: RunnerProcess) -> None:
        """Give a process that is forked what it is for, or what waits."""
        assignment = runner.reserved_for
        if assignment is not None:
            source = self._waiting.pop(assignment)
            if source is None:
                runner.retire()  # it was cancelled or returned meanwhile
            else:
                self._assign(assignment, runner, source)
        self.dispatch()

    def stop(self) -> None:
        """Begin nothing more."""
        self.stopped = True
        self._ahead.stop()

    def _choose(self, source: FetchedSource, *, may_queue: bool) -> RunnerProcess | None:
        """Return a free process, or else one in which the task waits for its turn, if it may."""
        runner = self._runners.choose(source)
        return self._ahead.choose(source) if runner is None and may_queue else runner

    def _assign(self, assignment: Assignment, runner: RunnerProcess, source: FetchedSource) -> None:
        runner.assign(assignment, source)
        if assignment.started_at:
            self._timers.start(assignment)
        else:
            self._ahead.watch()
