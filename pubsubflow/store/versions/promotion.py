"""Promotion and rollback: which version of a DAG is in force, and which has a share of its runs."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.changes import Change, DagChange, DagChanged, encode_records
from pubsubflow.model.revisions import Revisions, check_revision, dag_revision
from pubsubflow.model.source.bundles import source_key
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.source.version_choice import (
    VersionChoice,
    VersionsInUse,
    check_share,
    choose_promotion,
    choose_rollback,
)
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.versions.in_force import (
    dataset_inputs,
    declare_rate_limits,
    put_states_in_force,
)

_Choose = Callable[[Connection, int, VersionsInUse], Awaitable[VersionChoice]]


class _Version(Struct, frozen=True):
    """A version whose files are stored; `source` is what its runs are pinned to."""

    id: int
    spec: DagSpec
    source: str


class Promotions:
    """Puts versions of DAGs in force.

    Args:
        database: Postgres.
        now: The time.
    """

    def __init__(
        self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._now = now

    async def promote(
        self,
        dag_id: str,
        number: int | None,
        share: float | None,
        *,
        by: str,
        revisions: Revisions = None,
    ) -> None:
        """Put a version in force, or give it a share of the new runs.

        Args:
            dag_id: The DAG.
            number: The version; what the DAG's file defines if left out, which is followed again.
            share: The share of new runs, 0 to 1; all of them if left out.
            by: Who does it.
            revisions: The revisions of the DAG that this may be based on.

        Raises:
            NotFound: The DAG or the version is unknown.
            InvalidInput: Its files are not stored, or it cannot have a share.
            StaleRevision: The DAG has changed.
        """

        async def choose(_: Connection, __: int, state: VersionsInUse) -> VersionChoice:
            return choose_promotion(state, number, share)

        await self._change(dag_id, choose, by, revisions)

    async def rollback(
        self, dag_id: str, number: int | None, *, by: str, revisions: Revisions = None
    ) -> None:
        """Put an earlier version in force until one is promoted, or end a share.

        Args:
            dag_id: The DAG.
            number: The version; if left out, a share ends, or else the version before is meant.
            by: Who does it.
            revisions: The revisions of the DAG that this may be based on.

        Raises:
            NotFound: The DAG or the version is unknown.
            InvalidInput: Its files are not stored, or it is a later one.
            StaleRevision: The DAG has changed.
        """

        async def choose(connection: Connection, dag: int, state: VersionsInUse) -> VersionChoice:
            before = await connection.fetchval(SQL["find_version_before"], dag, state.in_force)
            return choose_rollback(state, number, before)

        await self._change(dag_id, choose, by, revisions)

    async def _change(
        self,
        dag_id: str,
        choose: _Choose,
        by: str,
        revisions: Revisions,
    ) -> None:
        change = partial(
            _change, dag_id=dag_id, choose=choose, by=by, revisions=revisions, now=self._now()
        )
        await self._database.in_transaction(change)


async def _change(
    connection: Connection,
    *,
    dag_id: str,
    choose: _Choose,
    by: str,
    revisions: Revisions,
    now: datetime,
) -> None:
    """Put what is chosen in force; locks as a loader does: catalog, datasets, DAG state."""
    await connection.execute(SQL["lock_catalog"])
    # Read without the lock of the state: whatever changes a version has that of the catalog.
    row = await connection.fetchrow(SQL["read_versions_in_use"], dag_id)
    if row is None:
        raise NotFound("DAG", dag_id)
    if not row["version"]:
        raise InvalidInput(
            f"no file defines DAG {dag_id!r} any more, so it has no runs to choose for"
        )
    dag = row["id"]
    state = VersionsInUse(row["in_force"], row["newest"], row["pinned"], row["canary"])
    choice = await choose(connection, dag, state)
    found = await _read(connection, dag_id, dag, choice)
    chosen = found[choice.version]
    canary = None if choice.canary is None else found[choice.canary]
    if canary is not None:
        check_share(chosen.spec, canary.spec)
    # Before the state, in lock order: an older version may name datasets of its own.
    uris = {each.uri for each in dataset_inputs(chosen.spec) if not each.pattern}
    await connection.fetch(SQL["register_datasets"], sorted(uris))
    await connection.fetch(SQL["lock_dags"], [dag])
    # People pause and unpause under this lock alone, so the revision is read under it.
    (current,) = await connection.fetch(SQL["read_dag_revision"], dag)
    revision = dag_revision(current["version"], current["edits"])
    check_revision(f"DAG {dag_id!r}", revision, revisions)
    # The pin first: the triggers of its table let pass what it says, and nothing else.
    if choice.pinned:
        pin = (dag, chosen.id, chosen.source, row["newest_version"], by)
        await connection.execute(SQL["pin_version"], *pin)
    else:
        await connection.execute(SQL["unpin_version"], dag)
    changes: list[Change] = [
        DagChanged(dag_id=dag_id, change=DagChange.VERSION, version=choice.version, time=now)
    ]
    if chosen.id != row["version"]:
        await connection.execute(SQL["put_version_in_force"], dag, chosen.id)
        specs = {dag: chosen.spec}
        changes += await put_states_in_force(connection, {dag: chosen.id}, specs, now)
        await declare_rate_limits(connection, [chosen.spec])
    shares = (None, None, None) if canary is None else (canary.id, choice.share, canary.source)
    await connection.execute(SQL["set_version_shares"], dag, chosen.source, *shares)
    await connection.execute(SQL["record_changes"], encode_records(changes))


async def _read(
    connection: Connection, dag_id: str, dag: int, choice: VersionChoice
) -> dict[int, _Version]:
    """Return the versions of a choice by number.

    Raises:
        NotFound: The DAG has no such version.
        InvalidInput: The files of one are not stored.
    """
    numbers = [choice.version, *([] if choice.canary is None else [choice.canary])]
    rows = await connection.fetch(SQL["find_stored_versions"], dag, numbers)
    found = {row["number"]: row for row in rows}
    for number in numbers:
        if number not in found:
            # Retention removes those that no run has, with their files.
            remedy = f"`pubsubflow dags versions {dag_id}` lists those that are stored"
            raise NotFound("version", str(number), remedy)
        if not found[number]["stored"]:
            raise InvalidInput(
                f"the files of version {number} of DAG {dag_id!r} are not stored any more, so no "
                "run can have it: put its code back into the DAGs folder, or name another version "
                f"(`pubsubflow dags versions {dag_id}`)"
            )
    return {
        number: _Version(
            row["id"],
            STORED_SPEC.decode(row["spec"]),
            source_key(row["bundle"], row["id"], row["hash"]),
        )
        for number, row in found.items()
    }
