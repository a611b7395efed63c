"""The runner processes of a pool: forks, chooses and retires them."""

import asyncio
import contextlib
from collections.abc import Callable

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.limits import ProcessLimits
from pubsubflow.runner.protocol import RunnerSettings
from pubsubflow.worker.assignment import Assignment
from pubsubflow.worker.processes.runner_frames import RunnerEvents
from pubsubflow.worker.processes.runner_process import RunnerProcess
from pubsubflow.worker.resources.confinement import Confinement, Confinements
from pubsubflow.worker.resources.memory import resident_bytes
from pubsubflow.worker.settings import WorkerSettings
from pubsubflow.worker.source_cache import FetchedSource

log = structlog.get_logger(__name__)

_MAX_ASYNC_RUNNERS = 64
_MAX_APART = 4
_ASYNC_RECYCLE_FACTOR = 10
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 5.0
_TURN_SECONDS = 0.25


class RunnerSet:
    """The runner processes of one kind.

    Args:
        settings: The worker's.
        runner_settings: What each process gets at its start; names the kind.
        fork_server: Forks them.
        group: The task group in which they run.
        events: Called with what happens in them.
        confinements: What there is for tasks that declare resources.
        on_ready: Called with a process that is forked.
        on_exit: Called with a process that is gone, and its exit code.

    Attributes:
        all: All of them, with those that start or end.
        slots: How many assignments each may have.
        most: How many there may be, beside those for one assignment.
        starting: How many are not forked yet.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        runner_settings: RunnerSettings,
        *,
        fork_server: ForkServer,
        group: anyio.abc.TaskGroup,
        events: RunnerEvents,
        confinements: Confinements,
        on_ready: Callable[[RunnerProcess], None],
        on_exit: Callable[[RunnerProcess, int], None],
    ) -> None:
        self._settings = settings
        self._runner_settings = runner_settings
        self._sync = runner_settings.kind == "sync"
        self._fork_server = fork_server
        self._group = group
        self._events = events
        self._confinements = confinements
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._pause = 0.0
        self.all: list[RunnerProcess] = []
        self.slots = 1 if self._sync else settings.async_slots
        self.most = settings.processes if self._sync else _MAX_ASYNC_RUNNERS
        self.starting = 0

    def choose(self, source: FetchedSource) -> RunnerProcess | None:
        """Return a free runner of the same code, or else one that has run none yet."""
        found = None
        for runner in reversed(self.all):
            if runner.free_slots:
                if runner.process == source.process:
                    return runner
                if not runner.process:
                    found = runner
        return found

    def is_owed(self, left: dict[str, list[Assignment]]) -> bool:
        """Return whether the next free place is owed to one that has waited for its turn.

        Args:
            left: The code → the assignments that no runner could take, oldest first.
        """
        # On an event loop there is room beside the tasks of a process, and for more processes.
        if not (left and self._sync) or self.starting or not self.is_full:
            return False
        first = next(iter(left.values()))[0]
        return self._loop.time() - first.waits_since > _TURN_SECONDS

    def add(self, left: dict[str, list[Assignment]]) -> None:
        """Fork processes for assignments that have none, as far as there may be more.

        Args:
            left: The code → the assignments that no runner could take.
        """
        wanted = sum(map(len, left.values())) if self._sync else len(left)
        for _ in range(wanted - self.starting):
            if self.is_full:
                self._retire_idle(len(left))
                return
            self._start()

    @property
    def is_full(self) -> bool:
        """Whether there may be no further process, beside those for one assignment."""
        return sum(self._sync or runner.reserved_for is None for runner in self.all) >= self.most

    def has_own(self, assignment: Assignment) -> bool:
        """Return whether there is a process for this assignment alone."""
        return any(each.reserved_for is assignment for each in self.all)

    def reserve(self, assignment: Assignment) -> None:
        """Fork a process for one assignment alone, unless it has one or lacks room."""
        if self.has_own(assignment):
            return
        wanted = assignment.header.resources
        if wanted is None:
            if sum(each.reserved_for is not None for each in self.all) < _MAX_APART:
                self._start(assignment)
        elif not self._confinements.has_room(assignment, wanted):
            return  # idle processes are for those that have room
        elif len(self.all) >= self.most:
            self._retire_idle(1)
        else:
            self._start(assignment, self._confinements.take(assignment, wanted))

    def maintain(self) -> None:
        """Retire runners that have long been idle or hold much memory; call it regularly."""
        now, settings = self._loop.time(), self._settings
        idle = [each for each in self.all if each.free_slots and not each.assignments]
        idle.sort(key=lambda runner: runner.idle_since, reverse=True)
        keep = settings.warm_processes if self._sync else 1
        for index, runner in enumerate(idle):
            old = index >= keep and now - runner.idle_since > settings.idle_seconds
            if old or resident_bytes(runner.pid) > settings.max_idle_bytes:
                runner.retire()

    def _retire_idle(self, wanted: int) -> None:
        # What waits cannot use an idle runner, which runs other code. Its place goes to a new
        # process, unless there will be room soon.
        if self.starting + sum(runner.ending for runner in self.all) >= wanted:
            return
        for runner in self.all:
            if runner.free_slots and not runner.assignments:
                runner.retire()
                return

    def _start(
        self, reserved_for: Assignment | None = None, confinement: Confinement | None = None
    ) -> None:
        recycle_after = self._settings.recycle_tasks * (1 if self._sync else _ASYNC_RECYCLE_FACTOR)
        settings = self._runner_settings
        if self._sync or reserved_for is not None:
            limits = ProcessLimits() if confinement is None else confinement.limits
            settings = msgspec.structs.replace(settings, alone=True, limits=limits)
        runner = RunnerProcess(
            settings,
            slots=self.slots,
            recycle_after=1 if reserved_for else recycle_after,
            events=self._events,
            reserved_for=reserved_for,
            confinement=confinement,
        )
        self.all.append(runner)
        self.starting += 1
        self._group.start_soon(self._supervise, runner)

    async def _supervise(self, runner: RunnerProcess) -> None:
        """Run a runner process from its fork to its exit."""
        with contextlib.closing(runner):
            code = await self._run(runner)
            # Processes that crash before they served anything would be forked in a busy loop.
            if runner.assignments.count or not code:
                self._pause = 0.0
            else:
                self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
            self._on_exit(runner, code)

    async def _run(self, runner: RunnerProcess) -> int:
        """Run a runner process, and return its exit code."""
        if self._pause:
            await anyio.sleep(self._pause)
        starting = True

        def ready() -> None:
            nonlocal starting
            starting = False
            self.starting -= 1
            runner.idle_since = self._loop.time()
            self._on_ready(runner)

        code = 1
        try:
            code = await runner.run(self._fork_server, ready)
        except OSError as error:
            log.error("worker.fork_failed", error=str(error))  # noqa: TRY400 - it says it all
        finally:
            self.starting -= starting
            self.all.remove(runner)
        return code
