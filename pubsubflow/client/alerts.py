"""Client methods for alerts."""

from collections.abc import AsyncIterator

from pubsubflow.client.transport import Transport
from pubsubflow.model.api.alerts import AlertDetail, AlertView
from pubsubflow.model.api.resources import Page


class AlertApi:
    """Methods of the client for alerts."""

    _server: Transport

    def alerts(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AlertView]:
        """Yield alerts, the newest first.

        Args:
            state: `open`, `acknowledged` or `ended`.
            kind: `deadline`, `freshness`, `callback` or `check`.
            subject: A DAG, a dataset, or a check.
            limit: How many at most.
        """
        query = {"state": state, "kind": kind, "subject": subject}
        return self._server.list("/api/v1/alerts", Page[AlertView], query, limit)

    async def alert(self, number: int) -> AlertDetail:
        """Return an alert and the calls that it has made."""
        return await self._server.get(f"/api/v1/alerts/{number}", AlertDetail)

    async def acknowledge_alert(self, number: int) -> AlertDetail:
        """Acknowledge an open alert, and return it."""
        return await self._server.send(
            "POST", f"/api/v1/alerts/{number}/acknowledge", None, AlertDetail, idempotent=True
        )
