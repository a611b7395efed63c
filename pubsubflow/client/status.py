"""Client methods for the server's status, its triggers and its dead letters."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pubsubflow.client.transport import Transport, if_match
from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.server import Info, Readiness
from pubsubflow.model.api.triggers import TriggerView
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model.api import explain as explanations
    from pubsubflow.model.api.overviews import runs as overviews
    from pubsubflow.model.api.overviews import system as systems
else:
    explanations = lazy_module("pubsubflow.model.api.explain")
    overviews = lazy_module("pubsubflow.model.api.overviews.runs")
    systems = lazy_module("pubsubflow.model.api.overviews.system")


class ServerApi:
    """Methods of the client for the server, triggers and dead letters."""

    _server: Transport

    async def info(self) -> Info:
        """Return version and process of the server, and its workers."""
        return await self._server.get("/api/v1/info", Info)

    async def summary(
        self,
        *,
        dag_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        buckets: int = 48,
    ) -> "overviews.Summary":
        """Return what happens now, and what became of the runs of late.

        Args:
            dag_id: Failures and history of this DAG alone.
            since: Where the history begins; 24 hours before its end if left out.
            until: Where it ends; now if left out.
            buckets: Into how many equal parts it is divided.
        """
        params = {
            "dag": dag_id,
            "since": None if since is None else since.isoformat(),
            "until": None if until is None else until.isoformat(),
            "buckets": buckets,
        }
        return await self._server.get("/api/v1/summary", overviews.Summary, params)

    async def system(self) -> "systems.SystemView":
        """Return what the system stores, how far behind it is, and who does what."""
        return await self._server.get("/api/v1/system", systems.SystemView)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        body: object = None,
    ) -> str:
        """Send any request; return the body of the response, as text.

        Args:
            method: HTTP method.
            path: Path of the resource, such as `/api/v1/dags`.
            params: Query parameters.
            body: The body, encoded as JSON; none if None.
        """
        return await self._server.text(method, path, params or {}, body)

    async def readiness(self) -> Readiness:
        """Return whether the daemon is ready."""
        # A daemon that is not ready answers by 503 with the same body.
        return await self._server.get("/readyz", Readiness, accept=HTTPStatus.SERVICE_UNAVAILABLE)

    def triggers(
        self, *, kind: str | None = None, limit: int | None = None
    ) -> AsyncIterator[TriggerView]:
        """Yield what tasks wait for and what watches datasets, the newest first.

        Args:
            kind: Only `time`, `trigger`, `event` or `watch`.
            limit: Number at most; None for all.
        """
        return self._server.list("/api/v1/triggers", Page[TriggerView], {"kind": kind}, limit)

    def dead_letters(
        self,
        *,
        resent: bool = False,
        kind: str | None = None,
        dag_id: str | None = None,
        reason: str | None = None,
        limit: int | None = None,
    ) -> "AsyncIterator[explanations.DeadLetterView]":
        """Yield dead letters, the newest first.

        Args:
            resent: Also those that were resent or discarded.
            kind: Only those of this kind.
            dag_id: Only those of this DAG.
            reason: Only those with this reason, whole or as `dead_letter_summary` has it.
            limit: Number of dead letters at most; None for all.
        """
        params = {"resent": resent, "kind": kind, "dag": dag_id, "reason": reason}
        return self._server.list(
            "/api/v1/dead-letters", Page[explanations.DeadLetterView], params, limit
        )

    async def dead_letter(self, number: int) -> "explanations.DeadLetterDetail":
        """Return a dead letter with its payload."""
        return await self._server.get(
            f"/api/v1/dead-letters/{number}", explanations.DeadLetterDetail
        )

    async def dead_letter_summary(self, *, limit: int = 50) -> "list[explanations.DeadLetterGroup]":
        """Return how many open dead letters there are by kind, DAG and reason."""
        path = "/api/v1/dead-letters/summary"
        return (
            await self._server.get(path, explanations.DeadLetterSummary, {"limit": limit})
        ).groups

    async def resend_dead_letters(
        self, selection: Mapping[str, Any]
    ) -> "explanations.ResentLetters":
        """Resend open dead letters as they are, the oldest first.

        Args:
            selection: `ids`, `kind`, `dag`, `reason`, or `all`; `limit`, 100 unless given;
                `dry_run` only to check them.
        """
        return await self._server.send(
            "POST", "/api/v1/dead-letters/resend", selection, explanations.ResentLetters
        )

    async def discard_dead_letters(
        self, selection: Mapping[str, Any]
    ) -> "explanations.DiscardedLetters":
        """Discard open dead letters, the oldest first; see `resend_dead_letters`."""
        return await self._server.send(
            "POST", "/api/v1/dead-letters/discard", selection, explanations.DiscardedLetters
        )

    async def resend(
        self,
        number: int,
        *,
        payload: object = None,
        revision: str | None = None,
        dry_run: bool = False,
    ) -> "explanations.Resent":
        """Resend a dead letter.

        Args:
            number: The dead letter.
            payload: JSON in place of its own; None to leave it.
            revision: Only if its revision is still this one; RequestFailed (412) if not.
            dry_run: Only check it, and return what would happen.
        """
        path = f"/api/v1/dead-letters/{number}/resend"
        # Servers of before refuse fields that they do not know.
        more = {"dry_run": True} if dry_run else {}
        headers = if_match(revision)
        return await self._server.send(
            "POST", path, {"payload": payload, **more}, explanations.Resent, headers=headers
        )
