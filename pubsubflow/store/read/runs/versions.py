"""Versions of DAGs, read for the API: what each changed, its runs, and the source of its file."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from pubsubflow.errors import NotFound
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.version_shares import VersionRuns
from pubsubflow.model.api.versions import (
    RunGraph,
    VersionDetail,
    VersionFile,
    VersionFiles,
    VersionView,
)
from pubsubflow.model.schedule.conditions import inputs
from pubsubflow.model.source.bundles import Manifest
from pubsubflow.model.source.version_changes import version_changes
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.bundles import decode_manifest, read_manifest, read_source_file
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag, graph_of, schedule_text
from pubsubflow.store.read.runs.runs import find_run
from pubsubflow.store.read.runs.version_runs import count_runs
from pubsubflow.store.specs import SpecReader

SOURCE_BYTES = 1 << 20
_ABOVE_ALL = 2**31 - 1
_GONE = "its files are not stored any more"


class ReadVersions:
    """Queries about versions of DAGs."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(
        self, dag_id: str, *, limit: int, before: int | None = None
    ) -> Page[VersionView]:
        """Return versions of a DAG, the newest first.

        Args:
            dag_id: The DAG, also a retired one.
            limit: Number of versions at most.
            before: Only those with a lower number.

        Raises:
            NotFound: No DAG has this name.
        """
        async with self._database.search() as connection:
            dag = await find_dag(connection, dag_id)
            below = _ABOVE_ALL if before is None else before
            # One more, with which the last one is compared.
            rows = await connection.fetch(SQL["page_dag_versions"], dag, below, limit + 1)
            specs = await self._specs.load(connection, (row["id"] for row in rows))
            runs = await count_runs(connection, dag)
        items = [
            VersionView(**_facts(row, following, specs, runs))
            for row, following in zip(rows[:limit], [*rows[1:], None], strict=False)
        ]
        return Page(items, str(items[-1].number) if len(rows) > limit else None)

    async def get(self, dag_id: str, number: int, *, with_source: bool) -> VersionDetail:
        """Return a version of a DAG.

        Args:
            dag_id: The DAG, also a retired one.
            number: The version's number.
            with_source: Whether the text of its file may be shown.

        Raises:
            NotFound: The DAG has no such version.
        """
        async with self._database.connection() as connection:
            dag = await find_dag(connection, dag_id)
            below = min(number, _ABOVE_ALL - 1) + 1
            rows = await connection.fetch(SQL["page_dag_versions"], dag, below, 2)
            if not rows or rows[0]["number"] != number:
                raise NotFound("version", f"{number} of DAG {dag_id}")
            specs = await self._specs.load(connection, (row["id"] for row in rows))
            runs = await count_runs(connection, dag)
            spec = specs[rows[0]["id"]]
            if with_source:
                source, hidden = await _read_source(connection, rows[0]["bundle"], spec.file)
            else:
                source, hidden = None, "the roles operator and admin see it"
        return VersionDetail(
            **_facts(rows[0], rows[1] if len(rows) > 1 else None, specs, runs),
            dag_id=dag_id,
            file=spec.file,
            line=spec.line,
            graph=graph_of(spec),
            params=spec.params,
            params_schema=spec.params_schema,
            max_active_runs=spec.max_active_runs,
            source=source,
            source_hidden=hidden,
        )

    async def files(self, dag_id: str, number: int, *, file: str | None = None) -> VersionFiles:
        """Return the files of a version, and the text of one of them.

        Args:
            dag_id: The DAG, also a retired one.
            number: The version's number.
            file: The path of the one whose text is wanted; the DAG's own if left out.

        Raises:
            NotFound: The DAG has no such version.
        """
        async with self._database.connection() as connection:
            dag = await find_dag(connection, dag_id)
            below = min(number, _ABOVE_ALL - 1) + 1
            rows = await connection.fetch(SQL["page_dag_versions"], dag, below, 1)
            if not rows or rows[0]["number"] != number:
                raise NotFound("version", f"{number} of DAG {dag_id}")
            version = rows[0]["id"]
            spec = (await self._specs.load(connection, [version]))[version]
            stored = await read_manifest(connection, rows[0]["bundle"])
            manifest = Manifest("", "", {}) if stored is None else decode_manifest(stored)
            path = file or _path_in(manifest, spec.file)
            text, hidden = await _read_text(connection, manifest, path)
        return VersionFiles(
            dag_id=dag_id,
            number=number,
            files=[
                VersionFile(path=path, size=found.size, hash=found.hash)
                for path, found in sorted(manifest.files.items())
            ],
            file=path,
            text=text,
            hidden=_GONE if stored is None else hidden,
        )

    async def run_graph(self, run_id: UUID) -> RunGraph:
        """Return the graph of a run, with the states of its tasks.

        Raises:
            NotFound: No run has this id.
        """
        async with self._database.connection() as connection:
            run = await find_run(connection, run_id)
            rows = await connection.fetch(SQL["count_run_tasks"], run.number)
            spec = (await self._specs.load(connection, [run.version]))[run.version]
        states: dict[str, dict[str, int]] = {}
        for row in rows:
            counts = states.setdefault(spec.tasks[row["node"]].task_id, {})
            counts[row["state"]] = counts.get(row["state"], 0) + row["instances"]
        condition = None if spec.schedule is None else spec.schedule.condition
        return RunGraph(
            run_id=run.view.run_id,
            dag_id=run.view.dag_id,
            version=run.view.version,
            graph=graph_of(spec),
            datasets=[] if condition is None else [each.uri for each in inputs(condition)],
            states=states,
        )


def _facts(
    row: asyncpg.Record,
    before: asyncpg.Record | None,
    specs: Mapping[int, DagSpec],
    runs: Mapping[int, VersionRuns],
) -> dict[str, Any]:
    """Return the fields of a version; `before` is the one numbered next below it."""
    spec = specs[row["id"]]
    # A version that retention has removed leaves a gap, over which nothing is compared.
    compared = before is not None and before["number"] == row["number"] - 1
    return {
        "number": row["number"],
        "created_at": row["created_at"],
        "in_force": row["in_force"],
        "bundle": row["bundle"],
        "stored": row["stored"],
        "schedule": schedule_text(spec),
        "tasks": len(spec.tasks),
        "runs": runs.get(row["id"], VersionRuns()),
        "changes": version_changes(specs[before["id"]], spec)
        if before is not None and compared
        else None,
    }


async def _read_source(
    connection: Connection, bundle: str, file: str
) -> tuple[str | None, str | None]:
    """Return the text of a DAG file in a bundle, or why there is none."""
    stored = await read_manifest(connection, bundle)
    if stored is None:
        return None, _GONE
    manifest = decode_manifest(stored)
    return await _read_text(connection, manifest, _path_in(manifest, file))


def _path_in(manifest: Manifest, file: str) -> str:
    """Return the path in a bundle of a file of the DAGs folder."""
    return file.removeprefix(f"{manifest.base}/") if manifest.base else file


async def _read_text(
    connection: Connection, manifest: Manifest, path: str
) -> tuple[str | None, str | None]:
    """Return the text of a file of a bundle, or why there is none."""
    found = manifest.files.get(path)
    if found is None:
        return None, f"its bundle has no file {path}"
    if found.size > SOURCE_BYTES:
        return None, f"the file has {found.size} bytes; up to {SOURCE_BYTES} are shown"
    part = await read_source_file(connection, found.hash, 0, SOURCE_BYTES)
    if part is None:
        return None, _GONE
    return part[0].decode(errors="replace"), None
