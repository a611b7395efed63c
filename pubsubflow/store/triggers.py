"""Leases of triggers, held by triggerers, and the runs that the triggerers themselves look for."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from msgspec import Struct

from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.triggers import EndedRun, RunEnded
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader


class LeasedTrigger(Struct, frozen=True):
    """A trigger that a triggerer has leased.

    Attributes:
        number: Its id.
        epoch: Of the lease.
        data: Its encoded fields.
        position: Of a watched dataset, encoded.
        error: Why a watch was restarted last, if it was.
        dag_id: The DAG whose task waits; None for a watch.

    The other attributes are columns of the table `trigger`.
    """

    number: int
    epoch: int
    kind: str
    name: str
    data: bytes
    share_key: str | None
    run: int
    node: int
    map_index: int
    delivery: int
    wait_index: int
    position: bytes
    sequence: int
    error: str | None
    created_at: datetime
    dag_id: str | None = None


class LeaseChecksum(Struct, frozen=True):
    """A checksum of a set of leases: their number, the sums of their ids and of their epochs."""

    number: int
    ids: int
    epochs: int

    @classmethod
    def of(cls, leases: Mapping[int, int]) -> "LeaseChecksum":
        """Return the checksum of leases, number → epoch."""
        return cls(len(leases), sum(leases), sum(leases.values()))


class TriggerLeases:
    """The leases of one triggerer.

    Args:
        database: Postgres.
        name: The triggerer's unique name.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    async def register(self, *, host: str, pid: int, capacity: int) -> None:
        """Register the triggerer; before that it can claim nothing."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["register_triggerer"], self._name, host, pid, capacity)

    async def heartbeat(self, running: int) -> tuple[int, LeaseChecksum]:
        """Record a heartbeat; return the number of triggerers, and the checksum of its leases.

        The number includes this one. It is 0 if this one was declared dead, and so has lost its
        triggers.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["heartbeat_triggerer"], self._name, running)
        if row is None:
            return 0, LeaseChecksum(0, 0, 0)
        living, *sums = row
        return living, LeaseChecksum(*sums)

    async def has_claimable(self) -> bool:
        """Return whether there are triggers to claim, or cancelled ones to clean up after."""
        async with self._database.connection() as connection:
            found: bool = await connection.fetchval(SQL["find_claimable_triggers"], self._name)
        return found

    async def claim(self, limit: int) -> list[LeasedTrigger]:
        """Claim unowned triggers."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["claim_triggers"], self._name, limit)
        return _leased(rows)

    async def claim_cancelled(self, limit: int, known: Collection[int]) -> list[LeasedTrigger]:
        """Claim cancelled triggers that are unowned or its own already, except known ones."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                SQL["claim_cancelled_triggers"], self._name, limit, list(known)
            )
        return _leased(rows)

    async def list_leases(self) -> dict[int, int]:
        """Return its leases: number → epoch."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_trigger_leases"], self._name)
        return {row["id"]: row["epoch"] for row in rows}

    async def release_silent(self, seconds: float) -> dict[str, int]:
        """Delete silent triggerers and release their triggers; return name → number of triggers."""
        freed: dict[str, int] = {}

        async def work(connection: Connection) -> None:
            # The triggerer goes before its triggers: from then on it can claim no others.
            rows = await connection.fetch(SQL["delete_silent_triggerers"], seconds)
            for name in sorted(row["name"] for row in rows):
                freed[name] = len(await connection.fetch(SQL["release_triggers_of"], [name]))

        await self._database.in_transaction(work)
        return freed

    async def release(self, trigger_ids: Iterable[int]) -> None:
        """Release some triggers."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["release_triggers"], self._name, list(trigger_ids))

    async def deregister(self) -> int:
        """Deregister the triggerer and release all its triggers; return their number."""
        freed = 0

        async def work(connection: Connection) -> None:
            nonlocal freed
            await connection.execute(SQL["delete_triggerer"], self._name)
            freed = len(await connection.fetch(SQL["release_triggers_of"], [self._name]))

        await self._database.in_transaction(work)
        return freed

    async def delete_cancelled(self, trigger_ids: Iterable[int]) -> None:
        """Delete cancelled triggers that have cleaned up."""
        async with self._database.connection() as connection:
            await connection.execute(
                SQL["delete_cancelled_triggers"], self._name, list(trigger_ids)
            )

    async def record_errors(self, errors: Mapping[int, str | None]) -> None:
        """Record why watches were restarted; None for those that run well."""
        texts = [None if text is None else printable(text) for text in errors.values()]
        async with self._database.connection() as connection:
            await connection.execute(SQL["record_trigger_errors"], self._name, list(errors), texts)


async def release_all_triggers(database: Database) -> None:
    """Release all triggers, when it is certain that no triggerer is alive."""

    async def work(connection: Connection) -> None:
        rows = await connection.fetch(SQL["delete_all_triggerers"])
        await connection.fetch(SQL["release_triggers_of"], [row["name"] for row in rows])

    await database.in_transaction(work)


def _leased(rows: Iterable[asyncpg.Record]) -> list[LeasedTrigger]:
    def number(row: asyncpg.Record, column: str) -> int:
        return -1 if row[column] is None else row[column]

    return [
        LeasedTrigger(
            number=row["id"],
            epoch=row["epoch"],
            kind=row["kind"],
            name=row["name"],
            data=row["data"],
            share_key=row["share_key"],
            run=number(row, "run"),
            node=number(row, "node"),
            map_index=number(row, "map_index"),
            delivery=number(row, "delivery"),
            wait_index=number(row, "wait_index"),
            position=row["position"] or b"\xc0",  # nil in msgpack
            sequence=row["sequence"],
            error=row["error"],
            created_at=row["created_at"],
            dag_id=row["dag_id"],
        )
        for row in rows
    ]


# A run's id begins with the time at which it was made, by the clock of the manager that made it.
_SKEW = timedelta(minutes=1)


class _Candidate(Struct, frozen=True):
    """The run that a wait is for, ended or not."""

    number: int
    wanted: RunEnded
    row: asyncpg.Record


class EndedRuns:
    """Looks up what waits for other runs are for.

    Args:
        database: Postgres.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._specs = SpecReader()

    async def find(self, waits: Mapping[int, RunEnded]) -> dict[int, EndedRun]:
        """Return the waits, by their numbers, whose run or task has ended.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            runs = await self._candidates(connection, waits)
            found = {
                each.number: _ended(each.row, each.row["state"])
                for each in runs
                if each.wanted.task_id is None and RunState(each.row["state"]).final
            }
            tasks = [each for each in runs if each.wanted.task_id is not None]
            if tasks:
                found |= await self._ended_tasks(connection, tasks)
        return found

    async def _candidates(
        self, connection: Connection, waits: Mapping[int, RunEnded]
    ) -> list[_Candidate]:
        """Return the runs that the waits are for, as far as they exist."""
        by_id = [(number, UUID(wait.run_id)) for number, wait in waits.items() if wait.run_id]
        ticks = [
            (number, wait.dag_id, wait.logical_time, wait.partition)
            for number, wait in waits.items()
            if wait.logical_time is not None
        ]
        later = [
            (number, wait.dag_id, _first_id(wait.since), wait.since, wait.partition)
            for number, wait in waits.items()
            if wait.logical_time is None and wait.since is not None
        ]
        rows: list[asyncpg.Record] = []
        for query, arguments in (
            ("find_awaited_runs", by_id),
            ("find_awaited_ticks", ticks),
            ("find_next_runs", later),
        ):
            if arguments:
                columns = map(list, zip(*arguments, strict=True))
                rows += await connection.fetch(SQL[query], *columns)
        return [_Candidate(row["number"], waits[row["number"]], row) for row in rows]

    async def _ended_tasks(
        self, connection: Connection, runs: Iterable[_Candidate]
    ) -> dict[int, EndedRun]:
        """Return those whose task has ended; of a mapped one, when its run has."""
        runs = list(runs)
        specs = await self._specs.load(connection, [each.row["version"] for each in runs])
        nodes = {each.number: _node(specs[each.row["version"]], each.wanted) for each in runs}
        keys = [(each.row["id"], nodes[each.number]) for each in runs]
        rows = await connection.fetch(
            SQL["find_ended_tasks"], [run for run, _ in keys], [node or 0 for _, node in keys]
        )
        states: dict[tuple[int, int], dict[int, str]] = {}
        for row in rows:
            states.setdefault((row["run"], row["node"]), {})[row["map_index"]] = row["state"]
        found: dict[int, EndedRun] = {}
        for each in runs:
            node = nodes[each.number]
            ended = states.get((each.row["id"], -1 if node is None else node), {})
            state = _task_state(ended, over=RunState(each.row["state"]).final)
            if state is not None:
                found[each.number] = _ended(each.row, state)
        return found


def _task_state(states: Mapping[int, str], *, over: bool) -> str | None:
    """Return the state in which a task has ended; None if it may not have.

    Args:
        states: Map index → end state, of what has ended.
        over: Whether the run has ended.
    """
    if NOT_MAPPED in states:
        return states[NOT_MAPPED]
    if not over:
        return None
    # A task that is not there any more, or never was in this version, has not run.
    bad = [state for state in states.values() if state != TaskState.SUCCESS]
    return (bad or [*states.values(), TaskState.SKIPPED.value])[0]


def _node(spec: DagSpec, wanted: RunEnded) -> int | None:
    return next((task.node for task in spec.tasks if task.task_id == wanted.task_id), None)


def _first_id(moment: datetime) -> UUID:
    """Return the least id that a run made then may have (RFC 9562, version 7)."""
    return UUID(int=int((moment - _SKEW).timestamp() * 1000) << 80)


def _ended(row: asyncpg.Record, state: str) -> EndedRun:
    return EndedRun(
        run_id=str(row["run_id"]),
        dag_id=row["dag_id"],
        state=state,
        logical_time=row["logical_time"],
        partition=row["partition"],
        error=row["error"],
    )
