"""Client methods for subscriptions, which deliver events to URLs."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from pubsubflow.client.transport import Transport, if_match, quoted
from pubsubflow.model.api.resources import Page
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model import subscriptions as models
else:
    models = lazy_module("pubsubflow.model.subscriptions")

_PATH = "/api/v1/subscriptions"


class SubscriptionApi:
    """Methods of the client for subscriptions."""

    _server: Transport

    def subscriptions(
        self, *, limit: int | None = None
    ) -> "AsyncIterator[models.SubscriptionView]":
        """Yield subscriptions, the oldest first."""
        return self._server.list(_PATH, Page[models.SubscriptionView], {}, limit)

    async def subscription(self, name: str) -> "models.SubscriptionView":
        """Return a subscription by its id."""
        return await self._server.get(_one(name), models.SubscriptionView)

    async def subscribe(
        self,
        url: str,
        *,
        dataset: str | None = None,
        dags: Sequence[str] = (),
        where: str | None = None,
        mode: "models.Mode" = "structured",
        ordered: bool = True,
        description: str = "",
        secret: str | None = None,
    ) -> "models.CreatedSubscription":
        """Subscribe a URL to events from now on; only the returned value shows the secret.

        Args:
            url: The URL that events are posted to.
            dataset: URI, or a pattern with `*` and `**`; None for all datasets.
            dags: Only events that tasks of these DAGs emit.
            where: CEL over `event`; only events for which it is true.
            mode: `structured` for CloudEvents in JSON, `binary` for headers and data.
            ordered: Whether events are delivered one after the other, in the log's order; else
                several side by side.
            description: For people.
            secret: `whsec_…`; a new one if left out.
        """
        body = {
            "url": url,
            "dataset": dataset,
            "dags": list(dags),
            "where": where,
            "mode": mode,
            "ordered": ordered,
            "description": description,
            "secret": secret,
        }
        return await self._server.send("POST", _PATH, body, models.CreatedSubscription)

    async def pause_subscription(
        self, name: str, *, paused: bool = True, revision: str | None = None
    ) -> "models.SubscriptionView":
        """Pause a subscription, or resume it where it stopped; return it.

        Args:
            name: Id of the subscription.
            paused: Whether deliveries are suspended.
            revision: Only if its revision is still this one; RequestFailed (412) if not.
        """
        headers = if_match(revision)
        return await self._server.send(
            "PATCH", _one(name), {"paused": paused}, models.SubscriptionView, headers=headers
        )

    async def delete_subscription(
        self, name: str, *, revision: str | None = None
    ) -> "models.SubscriptionView":
        """Delete a subscription; return what it was."""
        return await self._server.send(
            "DELETE", _one(name), None, models.SubscriptionView, headers=if_match(revision)
        )

    async def test_subscription(self, name: str) -> "models.TestedDelivery":
        """Send a test event; return the receiver's reply."""
        return await self._server.send("POST", f"{_one(name)}/test", None, models.TestedDelivery)


def _one(name: str) -> str:
    return f"{_PATH}/{quoted(name)}"
