"""Client methods for versions of DAGs, and for graphs of runs."""

from collections.abc import AsyncIterator
from typing import Any

from pubsubflow.client.transport import Transport, if_match, quoted
from pubsubflow.model.api.resources import DagDetail, Page
from pubsubflow.model.api.versions import (
    DagDeletion,
    RunGraph,
    VersionDetail,
    VersionFiles,
    VersionView,
)


class VersionApi:
    """Methods of the client for versions of DAGs."""

    _server: Transport

    def versions(self, dag_id: str, *, limit: int | None = None) -> AsyncIterator[VersionView]:
        """Yield the versions of a DAG, the newest first.

        Args:
            dag_id: The DAG.
            limit: Number of versions at most; None for all.
        """
        return self._server.list(_versions(dag_id), Page[VersionView], {}, limit)

    async def version(self, dag_id: str, number: int) -> VersionDetail:
        """Return a version of a DAG; its source only to operators and admins."""
        return await self._server.get(f"{_versions(dag_id)}/{number}", VersionDetail)

    async def version_files(
        self, dag_id: str, number: int, *, file: str | None = None
    ) -> VersionFiles:
        """Return the files of a version, and the text of one; to operators and admins.

        Args:
            dag_id: The DAG.
            number: The version's number.
            file: The path of the one whose text is wanted; the DAG's own if left out.
        """
        path = f"/api/v1/dags/{quoted(dag_id)}/versions/{number}/files"
        return await self._server.get(path, VersionFiles, {"file": file})

    async def promote(
        self,
        dag_id: str,
        version: int | None = None,
        *,
        share: float | None = None,
        revision: str | None = None,
    ) -> DagDetail:
        """Put a version of a DAG in force, or give it a share of the new runs; return the DAG.

        Args:
            dag_id: The DAG.
            version: Its number; what the DAG's file defines if left out, which is followed again.
            share: The share of new runs that it takes, above 0 and up to 1; all if left out.
            revision: Only if the DAG's revision is still this one; RequestFailed (412) if not.
        """
        body = {"version": version, "share": share}
        return await self._choose(dag_id, "promote", body, revision, idempotent=True)

    async def rollback(
        self, dag_id: str, *, to: int | None = None, revision: str | None = None
    ) -> DagDetail:
        """Put an earlier version in force until one is promoted, or end a share; return the DAG.

        Args:
            dag_id: The DAG.
            to: The version's number; if left out, a share ends, or the one before is meant.
            revision: Only if the DAG's revision is still this one; RequestFailed (412) if not.
        """
        # Without a number each request goes one version back.
        return await self._choose(
            dag_id, "rollback", {"to": to}, revision, idempotent=to is not None
        )

    async def _choose(
        self,
        dag_id: str,
        action: str,
        body: dict[str, Any],
        revision: str | None,
        *,
        idempotent: bool,
    ) -> DagDetail:
        path = f"/api/v1/dags/{quoted(dag_id)}/{action}"
        return await self._server.send(
            "POST",
            path,
            body,
            DagDetail,
            headers=if_match(revision),
            idempotent=idempotent and revision is None,
        )

    async def delete_dag(
        self,
        dag_id: str,
        *,
        keep_history: bool = False,
        cancel: bool = False,
        dry_run: bool = False,
    ) -> DagDeletion:
        """Delete a DAG that no file defines any more; return what goes.

        Args:
            dag_id: The DAG.
            keep_history: Whether its runs and versions stay.
            cancel: Whether its runs under way are cancelled; RequestFailed (409) if there are any
                and they are not.
            dry_run: Whether to return what would be removed, and remove nothing.
        """
        chosen = {"keep_history": keep_history, "cancel": cancel, "dry_run": dry_run}
        flags = "&".join(f"{name}=true" for name, given in chosen.items() if given)
        path = f"/api/v1/dags/{quoted(dag_id)}" + (f"?{flags}" if flags else "")
        return await self._server.send("DELETE", path, None, DagDeletion)

    async def run_graph(self, run_id: str) -> RunGraph:
        """Return the graph of a run in its own version, with the states of its tasks."""
        return await self._server.get(f"/api/v1/runs/{quoted(run_id)}/graph", RunGraph)


def _versions(dag_id: str) -> str:
    return f"/api/v1/dags/{quoted(dag_id)}/versions"
