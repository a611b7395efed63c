"""Client methods for checks and the events that they hold."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.checks import CheckResultView, CheckView, HeldEventView, SettledEvents
from pubsubflow.model.api.resources import Page


class CheckApi:
    """Methods of the client for checks."""

    _server: Transport

    def checks(self, *, limit: int | None = None) -> AsyncIterator[CheckView]:
        """Yield checks by name.

        Args:
            limit: How many at most.
        """
        return self._server.list("/api/v1/checks", Page[CheckView], {}, limit)

    async def check(self, name: str) -> CheckView:
        """Return a check."""
        return await self._server.get(f"/api/v1/checks/{quoted(name)}", CheckView)

    def check_results(
        self,
        *,
        check: str | None = None,
        dataset: str | None = None,
        event: str | None = None,
        outcome: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckResultView]:
        """Yield what checks have found, the newest first.

        Args:
            check: Only results of the check of this name.
            dataset: Only those about events of this URI.
            event: Only those about this event.
            outcome: `waiting`, `passed`, `failed`, `error` or `removed`.
            limit: How many at most.
        """
        query = {"check": check, "dataset": dataset, "event": event, "outcome": outcome}
        return self._server.list("/api/v1/check-results", Page[CheckResultView], query, limit)

    def held_events(
        self, *, check: str | None = None, dataset: str | None = None, limit: int | None = None
    ) -> AsyncIterator[HeldEventView]:
        """Yield events that checks hold, the newest first.

        Args:
            check: Only those that the check of this name holds.
            dataset: Only those of this URI.
            limit: How many at most.
        """
        query = {"check": check, "dataset": dataset}
        return self._server.list("/api/v1/held-events", Page[HeldEventView], query, limit)

    async def settle_held_events(
        self,
        action: Literal["release", "discard", "run-again"],
        events: Sequence[str] = (),
        *,
        check: str | None = None,
        dataset: str | None = None,
        waiting: bool = False,
        note: str = "",
    ) -> SettledEvents:
        """Release or discard held events, or check them again; return which.

        Args:
            action: What is done with them.
            events: Their ids; all that `check` and `dataset` name if empty, 500 at a time.
            check: Those that the check of this name holds.
            dataset: Those of this URI.
            waiting: Also those that only wait for a check, which has failed none of them.
            note: Why, in one line.
        """
        body: dict[str, Any] = {"events": list(events), "waiting": waiting, "note": note}
        body |= {key: value for key, value in (("check", check), ("dataset", dataset)) if value}
        return await self._server.send(
            "POST", f"/api/v1/held-events/{action}", body, SettledEvents, idempotent=True
        )
