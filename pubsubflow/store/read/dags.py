"""DAGs and their files, read for the API."""

from collections.abc import Collection, Mapping, Sequence

import asyncpg
from msgspec.structs import asdict, replace

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.resources import (
    DagDetail,
    DagPage,
    DagTaskView,
    DagView,
    ImportErrorView,
    InputView,
    ResourcesView,
    RunBrief,
)
from pubsubflow.model.api.version_shares import PinView, VersionRuns, VersionShare
from pubsubflow.model.revisions import dag_revision
from pubsubflow.model.schedule.condition_state import decode_condition_state
from pubsubflow.model.schedule.conditions import describe_schedule, inputs
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec, TaskSpec
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.runs.version_runs import count_runs
from pubsubflow.store.specs import SpecReader

_LOOKED_AT = 1000
"""DAGs that a page of a filtered list looks at."""


class ReadDags:
    """Queries about DAGs."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(
        self,
        *,
        limit: int,
        after: str | None = None,
        tags: Collection[str] = (),
        owner: str | None = None,
        paused: bool | None = None,
        checks: bool = False,
        text: str = "",
        recent: int = 0,
        among: Sequence[str] | None = None,
    ) -> DagPage:
        """Return DAGs by name, and the files that cannot be imported.

        A page filtered by tags or owner may hold fewer DAGs than `limit` although the list goes
        on: a thousand are looked at, at most.

        Args:
            limit: Number of DAGs at most.
            after: The last name of the page before.
            tags: Only those that have all of these.
            owner: Only those of this owner.
            paused: Only those that are paused, or not; None for both.
            checks: Those that checks are, in place of all others.
            text: Only those with this in their name, in any case.
            recent: How many of its last runs to return with each.
            among: Only those of these names; None for any.
        """
        filtered = bool(tags) or owner is not None or paused is not None
        # Tags and owners are in the definitions: these are read a thousand at a time, so that a
        # search among 10,000 DAGs costs some requests in place of hundreds.
        looked_at = max(limit, _LOOKED_AT) if filtered else limit
        async with self._database.search() as connection:
            page = await connection.fetch(
                SQL["page_dags"], after or "", looked_at, checks, text.lower(), among
            )
            found = await self._read(connection, [row["id"] for row in page])
            chosen = [
                (row, spec)
                for row, spec in found
                if set(tags) <= set(spec.tags)
                and owner in (None, spec.owner)
                and paused in (None, row["paused"])
            ]
            shown = chosen[:limit]
            runs = await _read_recent(connection, [row["id"] for row, _ in shown], recent)
            broken = await connection.fetch(SQL["list_import_errors"])
        # The cursor stands at what was shown last, or else at what was looked at last.
        last = shown if len(chosen) > limit else found if len(page) == looked_at else ()
        return DagPage(
            items=[
                replace(_dag(row, spec), recent_runs=runs.get(row["id"], [])) for row, spec in shown
            ],
            next=last[-1][0]["dag_id"] if last else None,
            import_errors=[ImportErrorView(**dict(row)) for row in broken],
        )

    async def get(self, dag_id: str) -> DagDetail:
        """Return the details of a DAG, also of a retired one.

        Raises:
            NotFound: No DAG has this name.
        """
        async with self._database.connection() as connection:
            number = await find_dag(connection, dag_id)
            found = await self._read(connection, [number])
            if not found:
                raise NotFound("DAG", dag_id)
            (row, spec), *_ = found
            shares = [] if row["canary"] is None else await _read_shares(connection, number, row)
        return _detail(row, spec, shares)

    async def encoded_spec(self, dag_id: str) -> bytes:
        """Return the version of a DAG that is in force, as it is stored.

        Raises:
            NotFound: No DAG has this name.
            InvalidInput: No version of it was ever in force.
        """
        async with self._database.connection() as connection:
            number = await find_dag(connection, dag_id)
            row = await connection.fetchrow(SQL["read_dag_state"], number)
            if row is None:
                raise InvalidInput("no version of the DAG was ever in force")
            specs = await self._specs.load(connection, [row["version"]])
        return STORED_SPEC.encode(specs[row["version"]])

    async def check(self, dag_id: str) -> None:
        """Check that a DAG exists.

        Raises:
            NotFound: No DAG has this name.
        """
        async with self._database.connection() as connection:
            await find_dag(connection, dag_id)

    async def tags(
        self, known: Mapping[str, tuple[int, tuple[str, ...]]]
    ) -> dict[str, tuple[int, tuple[str, ...]]]:
        """Return every DAG's version in force and the tags in it, retired DAGs included.

        Args:
            known: What was returned before: only versions that are not in it are read.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_dag_names_in_force"])
            new = [row for row in rows if known.get(row["dag_id"], (0,))[0] != row["version"]]
            specs = await self._specs.load(connection, [row["version"] for row in new])
        found = {row["dag_id"]: known.get(row["dag_id"], (row["version"], ())) for row in rows}
        for row in new:
            found[row["dag_id"]] = (row["version"], tuple(specs[row["version"]].tags))
        return found

    async def import_errors(self) -> list[ImportErrorView]:
        """Return the files that cannot be imported."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_import_errors"])
        return [ImportErrorView(**dict(row)) for row in rows]

    async def _read(
        self, connection: Connection, ids: list[int]
    ) -> list[tuple[asyncpg.Record, DagSpec]]:
        rows = await connection.fetch(SQL["read_dags"], ids)
        specs = await self._specs.load(connection, (row["version"] for row in rows))
        return [(row, specs[row["version"]]) for row in rows]


async def _read_recent(
    connection: Connection, dags: list[int], count: int
) -> dict[int, list[RunBrief]]:
    """Return the last runs of DAGs, the oldest first."""
    found: dict[int, list[RunBrief]] = {}
    rows = await connection.fetch(SQL["list_recent_runs"], dags, count) if count else []
    for row in reversed(rows):
        run = RunBrief(
            run_id=str(row["run_id"]),
            state=row["state"],
            created_at=row["created_at"],
            ended_at=row["ended_at"],
        )
        found.setdefault(row["dag"], []).append(run)
    return found


async def find_dag(connection: Connection, dag_id: str) -> int:
    """Return the id of a DAG.

    Raises:
        NotFound: No DAG has this name.
    """
    number: int | None = await connection.fetchval(SQL["find_dag"], dag_id)
    if number is None:
        raise NotFound("DAG", dag_id)
    return number


def schedule_text(spec: DagSpec) -> str | None:
    """Return a DAG's schedule in one line; None for a DAG without a schedule."""
    return describe_schedule(spec.schedule) or None


def _dag(row: asyncpg.Record, spec: DagSpec) -> DagView:
    last = None
    if row["run_id"] is not None:
        last = RunBrief(
            run_id=str(row["run_id"]),
            state=row["state"],
            created_at=row["last_created_at"],
            ended_at=row["last_ended_at"],
        )
    return DagView(
        dag_id=row["dag_id"],
        revision=dag_revision(row["version"], row["edits"]),
        schedule=schedule_text(spec),
        file=row["file"],
        version=row["number"],
        present=row["present"] and row["missing_since"] is None,
        missing_since=row["missing_since"],
        paused=row["paused"],
        active_runs=row["active"],
        queued_runs=row["queued"],
        tasks=len(spec.tasks),
        tags=spec.tags,
        owner=spec.owner,
        description=spec.description,
        last_run=last,
        next_tick=row["due_at"],
        import_error=row["error"],
        newest_version=row["newest"],
        pinned=row["pinned"],
    )


def _pending(row: asyncpg.Record, spec: DagSpec) -> list[int]:
    """Return the number of pending events per input, over all partitions."""
    parts = list(inputs(spec.schedule.condition)) if spec.schedule is not None else []
    totals = [0] * len(parts)
    for state in row["states"]:
        for part, pending in zip(parts, decode_condition_state(state).inputs, strict=False):
            totals[part.index] += pending.count
    return totals


async def _read_shares(connection: Connection, dag: int, row: asyncpg.Record) -> list[VersionShare]:
    """Return the two versions that share the runs of a DAG."""
    since = row["canary_since"]
    runs = await count_runs(connection, dag, since)
    number = await connection.fetchval(SQL["read_version_number"], row["canary"])
    share = row["canary_share"]
    found = ((row["number"], row["version"], 1 - share), (number, row["canary"], share))
    return [
        VersionShare(version=each, share=part, since=since, runs=runs.get(version, VersionRuns()))
        for each, version, part in found
    ]


def _detail(row: asyncpg.Record, spec: DagSpec, shares: list[VersionShare]) -> DagDetail:
    pending = _pending(row, spec)
    return DagDetail(
        **asdict(_dag(row, spec)),
        inputs=[
            InputView(
                place=part.index,
                dataset=part.uri,
                pending=pending[part.index] if part.index < len(pending) else 0,
            )
            for part in (inputs(spec.schedule.condition) if spec.schedule is not None else ())
        ],
        graph=graph_of(spec),
        params=spec.params,
        params_schema=spec.params_schema,
        presets=spec.presets,
        start=spec.start,
        end=spec.end,
        catchup=spec.catchup,
        max_active_runs=spec.max_active_runs,
        timeout_seconds=spec.timeout_seconds,
        on_pause=spec.on_pause,
        line=spec.line,
        created_at=row["created_at"],
        pin=PinView(at=row["pinned_at"], by=row["pinned_by"]) if row["pinned"] else None,
        shares=shares,
    )


def graph_of(spec: DagSpec) -> list[DagTaskView]:
    """Return the tasks of a version in topological order."""
    return [
        DagTaskView(
            task_id=task.task_id,
            operator=task.operator,
            kind=task.kind,
            role=task.role,
            upstream=[spec.tasks[node].task_id for node in task.upstream],
            trigger_rule=task.trigger_rule,
            retries=task.retry.retries,
            mapped=task.mapped,
            timeout_seconds=task.timeout_seconds,
            outlets=task.outlets,
            inlets=task.inlets,
            queue=task.queue,
            doc=task.doc,
            line=task.line,
            resources=_resources(task),
            map_group=task.map_group or None,
        )
        for task in spec.tasks
    ]


def _resources(task: TaskSpec) -> ResourcesView | None:
    declared = task.resources
    return None if declared is None else ResourcesView(memory=declared.memory, cpu=declared.cpu)
