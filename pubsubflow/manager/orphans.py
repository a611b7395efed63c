"""Orphaned tasks: running by the database, at a worker that lives and does not have them.

Their result was stored by NATS and lost there before a manager took it: a stream was purged or
deleted, a server lost its disk or went back to an older state. Nothing else would end them: the
worker is not lost, and no message is left to be delivered again. So each turn requests from workers
which of their tasks they do not have. A task is orphaned if it is missing twice in a row, its order
is not in its stream, and its result is not among those that managers have not acknowledged.
"""

import anyio
import structlog
from msgspec import DecodeError

from pubsubflow.bus import STREAM_IN, STREAM_TASK, Bus, find_last, find_next
from pubsubflow.errors import BusUnavailable
from pubsubflow.instruments import Counter
from pubsubflow.model.wire.commands import CommandHandler, RequeuedOrphan, RequeueOrphans
from pubsubflow.model.wire.held_tasks import HeldTasksRequest, decode_held_reply
from pubsubflow.model.wire.messages import Fence, decode_result_fence, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.batches.manager_transaction import ManagerTransaction, Row
from pubsubflow.store.database import Database

log = structlog.get_logger()

_PAGE = 1000
_ANSWER_SECONDS = 2.0
_MOST_RESULTS = 2000
"""Results that are read at a turn: with more of them managers are behind, and it is too early."""
_FIRST = (-1, -1, -1)

Orphan = tuple[str, Fence]
"""A task, and the worker at which it runs by the database."""


class OrphanFinder:
    """Finds orphaned tasks, and has them handed out anew.

    Args:
        database: Postgres.
        bus: NATS.
        commands: Has them handed out.
        running_seconds: Only tasks that have run for that long are looked at.
        worker_seconds: A worker that has been silent for longer gets no request.

    Attributes:
        found: Counts them.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        commands: CommandHandler,
        running_seconds: float,
        worker_seconds: float,
    ) -> None:
        self._database = database
        self._bus = bus
        self._commands = commands
        self._running_seconds = running_seconds
        self._worker_seconds = worker_seconds
        self._suspects: set[Orphan] = set()
        self.found = Counter(
            "pubsubflow_orphaned_tasks",
            "Tasks handed out again because their worker lives and has neither them nor their "
            "result.",
        )

    async def look(self) -> int:
        """Look once; return how many tasks were handed out anew.

        Raises:
            BusUnavailable: JetStream does not answer.
            StoreUnavailable: Postgres is away.
            ServiceStopped: The manager stops.
        """
        missing = await self._find_missing()
        again = missing & self._suspects
        self._suspects = missing
        orphans = await self._without_trace(again) if again else set()
        if not orphans:
            return 0
        requeued: list[RequeuedOrphan] = await self._commands.execute(
            RequeueOrphans(tuple(sorted(orphans)))
        )
        for each in requeued:
            log.warning(
                "sweeper.task_orphaned",
                dag_id=each.dag_id,
                run_id=each.run_id,
                task=each.task_id,
                map_index=each.map_index,
                worker=each.worker,
            )
        self.found.add(len(requeued))
        return len(requeued)

    async def _find_missing(self) -> set[Orphan]:
        """Return tasks that their workers do not have; a worker that does not answer has all."""
        missing: set[Orphan] = set()
        after = _FIRST
        while True:
            rows = await self._running_tasks(after)
            by_worker: dict[str, list[Fence]] = {}
            for row in rows:
                by_worker.setdefault(row["worker"], []).append(_fence(row))
            async with anyio.create_task_group() as group:
                for worker, fences in by_worker.items():
                    group.start_soon(self._ask, worker, fences, missing)
            if len(rows) < _PAGE:
                return missing
            after = _fence(rows[-1])[:3]

    async def _running_tasks(self, after: tuple[int, int, int]) -> list[Row]:
        async with self._database.connection() as connection:
            return await ManagerTransaction(connection).fetch(
                "find_running_tasks", self._running_seconds, self._worker_seconds, _PAGE, *after
            )

    async def _ask(self, worker: str, fences: list[Fence], missing: set[Orphan]) -> None:
        request = encode(HeldTasksRequest(tuple(fences)))
        try:
            answer = await self._bus.request(Subjects.held_tasks(worker), request, _ANSWER_SECONDS)
        except BusUnavailable as error:
            # It is of an earlier version, has ended just now, or hangs.
            log.debug("sweeper.worker_not_asked", worker=worker, reason=str(error))
            return
        missing.update((worker, fence) for fence in decode_held_reply(answer).missing)

    async def _without_trace(self, suspects: set[Orphan]) -> set[Orphan]:
        """Return those of which NATS has neither the order nor the result.

        The worker has answered before, so that a result is stored if there is one, and remains
        until a manager has committed it.
        """
        # Orders first: one is acknowledged after the result of its task is stored.
        left = {each for each in suspects if not await self._has_order(each[1])}
        results = await self._read_results({run for _, (run, *_) in left}) if left else set()
        return set() if results is None else {each for each in left if each[1] not in results}

    async def _has_order(self, fence: Fence) -> bool:
        """Return whether the order of a task is in its stream: another worker has it, or will."""
        return await find_last(self._bus, STREAM_TASK, Subjects.any_task(fence)) is not None

    async def _read_results(self, runs: set[int]) -> set[Fence] | None:
        """Return the fences of results of runs that no manager has acknowledged.

        Returns:
            None if that cannot be said: they are too many, or one cannot be read.
        """
        found: set[Fence] = set()
        left = _MOST_RESULTS
        for subject in sorted({Subjects.inbound(Subjects.RESULT, run) for run in runs}):
            # What comes after that is not the result of a task that was missing before.
            last = await find_last(self._bus, STREAM_IN, subject)
            number = 1
            while last is not None and number <= last.seq:
                stored = await find_next(self._bus, STREAM_IN, subject, number)
                if stored is None:
                    break
                left -= 1
                try:
                    found.add(decode_result_fence(stored.data))
                except DecodeError as error:
                    log.warning("sweeper.result_not_read", number=stored.seq, reason=str(error))
                    return None
                if not left:
                    return None
                number = stored.seq + 1
        return found


def _fence(row: Row) -> Fence:
    return row["run"], row["node"], row["map_index"], row["attempt"], row["delivery"]
