"""The engine of an executor: starts attempts elsewhere, watches and stops them, adopts its own.

The worker holds the message of an attempt until its process has ended. A message that comes again,
after a restart of this worker or of another, leads to the same process by its label.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial

import anyio
import anyio.abc
import msgspec
import structlog

from pubsubflow.errors import CannotStart
from pubsubflow.executors import DONE, NOT_BEGUN, Attempt, AttemptExit, AttemptLabel
from pubsubflow.exit_codes import describe_exit
from pubsubflow.model.wire.executor_spec import LOCAL
from pubsubflow.model.wire.messages import Outcome, TaskError, decode_run_info
from pubsubflow.model.wire.worker_requests import LeaseRequest, LeaseStatus, decode_lease_status
from pubsubflow.runner.log_lines import log_record
from pubsubflow.worker.assignment import Assignment, AttemptOutcome, Engine, TaskHeader
from pubsubflow.worker.executors.kept_sweep import KeptSweep
from pubsubflow.worker.executors.settings import ENVIRONMENT, AttemptSettings, OfferedExecutor
from pubsubflow.worker.manager_client import ManagerClient
from pubsubflow.worker.result_publisher import ResultPublisher

log = structlog.get_logger(__name__)

_ARGUMENTS = ("-m", "pubsubflow.worker.executors.attempt")
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
# With its pauses a quarter of a minute: a node that is broken is seldom taken so often.
_MOST_UNBEGUN = 5
_FIND_SECONDS = 60.0
_BROKEN_DELAY_SECONDS = 10.0
_REMOVE_SECONDS = 5.0
_FIRST_SEQUENCE = -(1 << 31)


class ExecutorEngine:
    """Runs assignments by the executor of a plugin.

    Args:
        offered: The executor.
        settings: What the process of an attempt gets; its order is still missing.
        worker: Id of the worker.
        group: The task group in which attempts are watched.
        managers: Answer which attempts are void.
        publisher: Publishes what the worker decides.
        local: By kind, the worker's own engines, for tasks that name the local executor.
        on_returned: Called with an assignment that goes back to its queue.
        on_finished: Called with an assignment of which nothing is left to run.
    """

    def __init__(
        self,
        offered: OfferedExecutor,
        *,
        settings: AttemptSettings,
        worker: str,
        group: anyio.abc.TaskGroup,
        managers: ManagerClient,
        publisher: ResultPublisher,
        local: Mapping[str, Engine],
        on_returned: Callable[[Assignment], None],
        on_finished: Callable[[Assignment], None],
    ) -> None:
        self._name = offered.name
        self._executor = offered.executor
        self._limit = anyio.CapacityLimiter(offered.slots)
        self._settings = settings
        # The process gives the task its grace, and needs time of its own after that.
        self._grace_seconds = 2 * settings.worker.grace_seconds
        self._worker = worker
        self._group = group
        self._managers = managers
        self._publisher = publisher
        self._local = local
        self._on_returned = on_returned
        self._on_finished = on_finished
        self._sweep = KeptSweep(offered.executor, managers)
        self._watched: dict[Assignment, _Watched] = {}
        self._closing = False

    @property
    def capacity(self) -> int:
        """How many assignments may be here at once."""
        return self.slots

    @property
    def room(self) -> int:
        """How many more assignments may be here."""
        return self.capacity - self.busy - self.waiting

    @property
    def slots(self) -> int:
        """How many attempts the worker has at once."""
        return int(self._limit.total_tokens)

    @property
    def busy(self) -> int:
        """How many attempts were started, or are about to be."""
        return self._limit.borrowed_tokens

    @property
    def waiting(self) -> int:
        """How many assignments wait for a slot."""
        return len(self._watched) - self.busy

    @property
    def runners(self) -> int:
        """How many processes it watches."""
        return self.busy

    @property
    def bundles(self) -> set[str]:
        """Nothing: attempts keep their code themselves."""
        return set()

    async def run(self) -> None:
        """Look now and then for attempts that nothing is left for, and remove them."""
        if self._executor.keeper is not None:
            self._group.start_soon(self._sweep.run)
        while True:
            try:
                await self._remove_orphans()
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                log.warning("executor.find_failed", executor=self._name, error=_line(error))
            await anyio.sleep(_FIND_SECONDS)

    def submit(self, assignment: Assignment) -> None:
        """Start an assignment, or find its process again."""
        spec = assignment.header.executor
        if spec is not None and spec.name == LOCAL:
            self._local[assignment.header.kind].submit(assignment)
        elif self._closing:
            self._on_returned(assignment)
        else:
            # Negative, as those of the process are not; later ones follow, on any worker.
            assignment.log_sequence = _FIRST_SEQUENCE + int(time.time())
            watched = self._watched[assignment] = _Watched(assignment.header)
            self._group.start_soon(self._drive, assignment, watched)

    def stop(self, assignment: Assignment, outcome: AttemptOutcome) -> None:
        """End an assignment with this outcome; its process gets the grace that it had here."""
        watched = self._watched.get(assignment)
        if watched is None:
            self._local[assignment.header.kind].stop(assignment, outcome)
        elif assignment.decided_outcome is None:
            assignment.decided_outcome = outcome
            watched.stopped.set()
            self._group.start_soon(self._stop, watched.label)

    def maintain(self) -> None:
        """Do nothing: attempts look after themselves."""

    def drain(self) -> None:
        """Return all to the queue: their processes go on, and are found again."""
        self._closing = True
        self.kill_all()

    def kill_all(self) -> None:
        """Give up what is left; no process ends."""
        for assignment, watched in tuple(self._watched.items()):
            watched.scope.cancel()
            self._return(assignment)

    def close(self) -> None:
        """Give up what is left; no process ends."""
        for watched in self._watched.values():
            watched.scope.cancel()

    async def _drive(self, assignment: Assignment, watched: "_Watched") -> None:
        with watched.scope:
            try:
                async with self._limit:
                    await self._run(assignment, watched)
            except Exception as error:
                log.exception("executor.failed", executor=self._name, **assignment.log_fields())
                self._report(assignment, f"the executor failed: {_line(error)}")
                self._return(assignment, _BROKEN_DELAY_SECONDS)

    async def _run(self, assignment: Assignment, watched: "_Watched") -> None:
        """Start the process of an attempt, wait for its end, and publish what it could not."""
        label = watched.label
        if assignment.redelivered and await self._is_void(label):
            outcome = None
            await self._clear(label)
        else:
            outcome = await self._outcome(assignment, watched)
        if outcome is None:
            self._publisher.acknowledge(assignment)
            spec = assignment.header.executor
            if spec is not None and spec.keeps_results:
                self._sweep.wake()
        else:
            payload = assignment.encode_result(self._worker, outcome)
            self._publisher.publish_result(assignment, payload)
        # Not before the outcome is published: a message that came again would start it anew. Nobody
        # comes back to it, so a worker that stops meanwhile waits for that.
        with anyio.move_on_after(_REMOVE_SECONDS, shield=True):
            await self._executor.remove(label)
        if self._watched.pop(assignment, None) is not None:
            self._on_finished(assignment)

    async def _outcome(self, assignment: Assignment, watched: "_Watched") -> AttemptOutcome | None:
        """Return what the worker decides, once the process is gone; None if that said it itself."""
        label, pause, unbegun, reported = watched.label, _FIRST_PAUSE_SECONDS, 0, ""
        while True:
            if assignment.decided_outcome is not None:
                return assignment.decided_outcome
            # A failure to start that may pass counts no attempt, however long it lasts; the message
            # is held meanwhile, so no other worker tries beside this one.
            try:
                end = await self._start(assignment, label, again=unbegun > 0)
            except CannotStart as error:
                reason = str(error)
                if not error.again and assignment.decided_outcome is None:
                    failure = TaskError("CannotStart", reason, final=True)
                    return AttemptOutcome(Outcome.FAILED, failure)
            else:
                if end.exit_code == DONE:
                    return None
                if watched.stopped.is_set():
                    continue
                unbegun += 1
                began = end.exit_code != NOT_BEGUN and end.begun
                if began or unbegun > _MOST_UNBEGUN:
                    return await self._failure(label, end, 0 if began else unbegun)
                reason = _how(end) or "its process could not begin"
                # Only what has ended: one that an executor cannot reach now may run.
                await self._executor.remove(label)
            if reason != reported:
                reported = reason
                self._report(assignment, f"not started yet: {reason}")
            with anyio.move_on_after(pause):
                await watched.stopped.wait()
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)

    async def _start(
        self, assignment: Assignment, label: AttemptLabel, *, again: bool
    ) -> AttemptExit:
        """Start the process of an attempt unless it is there, and wait for its end."""
        await self._executor.start(self._attempt(assignment, label, again=again))
        if assignment.decided_outcome is not None:
            # It was stopped when there was nothing to stop yet.
            await self._executor.stop(label, self._grace_seconds)
        return await self._executor.watch(label, partial(self._report, assignment))

    def _attempt(self, assignment: Assignment, label: AttemptLabel, *, again: bool) -> Attempt:
        """Return what the executor gets.

        Raises:
            CannotStart: The options are those of another version of the plugin.
        """
        header = assignment.header
        given = {} if header.executor is None else header.executor.options
        try:
            options = msgspec.convert(given, self._executor.Options)
        except msgspec.ValidationError as error:
            raise CannotStart(
                f"the options of executor {self._name!r} cannot be read: {error}; install the same "
                "version where DAG files are loaded and where workers run",
                again=False,
            ) from error
        again = again or assignment.redelivered
        settings = msgspec.structs.replace(
            self._settings, subject=assignment.delivery.subject, again=again
        )
        return Attempt(
            label=label,
            dag_id=header.dag_id,
            task_id=header.task_id,
            arguments=_ARGUMENTS,
            environment={ENVIRONMENT: msgspec.json.encode(settings).decode()},
            options=options,
            resources=header.resources,
            timeout_seconds=header.timeouts[0],
            again=again,
        )

    async def _failure(self, label: AttemptLabel, end: AttemptExit, unbegun: int) -> AttemptOutcome:
        """Return the outcome of an attempt whose process ended without a result.

        Args:
            label: Whose.
            end: How it ended.
            unbegun: How often it was started and did not begin; 0 if it has begun.
        """
        how = _how(end) or "its process is gone"
        # What cannot be read must not hide how it ended.
        try:
            output = await self._executor.read_output(label)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            output = f"its output cannot be read: {_line(error)}"
        if unbegun:
            text = f"its process ended {unbegun} times before the task began: {how}"
            return AttemptOutcome(Outcome.FAILED, TaskError("CannotStart", text, output))
        crash = TaskError("Crashed", f"the process of the attempt ended: {how}", output)
        return AttemptOutcome(Outcome.CRASHED, crash)

    async def _stop(self, label: AttemptLabel) -> None:
        try:
            await self._executor.stop(label, self._grace_seconds)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            log.warning("executor.stop_failed", executor=self._name, error=_line(error))

    async def _is_void(self, label: AttemptLabel) -> bool:
        request = LeaseRequest(
            label.run, label.node, label.map_index, label.attempt, label.delivery, self._worker
        )
        chunk = await self._managers.request(request)
        return chunk.error is None and decode_lease_status(chunk.data) is LeaseStatus.VOID

    async def _remove_orphans(self) -> None:
        """Stop and remove attempts that are void: their runs have ended, or were cleared."""
        ours = {each.label for each in self._watched.values()}
        for label in await self._executor.find():
            if label not in ours and await self._is_void(label):
                log.info("executor.orphan_removed", executor=self._name, **label.to_dict())
                await self._clear(label)

    async def _clear(self, label: AttemptLabel) -> None:
        await self._executor.stop(label, self._grace_seconds)
        with anyio.move_on_after(2 * self._grace_seconds):
            await self._executor.watch(label, lambda _: None)
        await self._executor.remove(label)

    def _report(self, assignment: Assignment, text: str) -> None:
        self._publisher.add_output(assignment, log_record("info", f"{self._name}: {text}", {}))

    def _return(self, assignment: Assignment, seconds: float | None = None) -> None:
        if self._watched.pop(assignment, None) is None:
            return  # the worker has stopped meanwhile, and given it up
        if seconds is None:
            self._on_returned(assignment)
        else:
            self._publisher.return_to_queue(assignment, seconds)
            self._on_finished(assignment)


class _Watched:
    """An assignment whose process is watched."""

    def __init__(self, header: TaskHeader) -> None:
        run = decode_run_info(header.info).run_id
        fence = (header.run, header.node, header.map_index, header.attempt, header.delivery)
        self.label = AttemptLabel(run, *fence)
        self.scope = anyio.CancelScope()
        self.stopped = anyio.Event()


def _how(end: AttemptExit) -> str:
    code = "" if end.exit_code in (None, NOT_BEGUN) else describe_exit(end.exit_code)
    return ": ".join(filter(None, (code, end.reason)))


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
