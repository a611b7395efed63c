"""Routes of subscriptions: create, list, pause, test and delete deliveries of events to URLs."""

from collections.abc import Callable, Iterable
from typing import Annotated
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from anyio import getaddrinfo
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions, json_with_etag
from pubsubflow.api.http.pagination import Cursor, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.bus import Bus
from pubsubflow.errors import DefinitionError, InvalidInput, NotFound
from pubsubflow.model.api.resources import Page
from pubsubflow.model.cel.checks import check_expression
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.subscriptions import (
    CHANGED,
    TEST,
    CreatedSubscription,
    Mode,
    State,
    SubscriptionSpec,
    SubscriptionView,
    TestedDelivery,
    check_url,
    is_public,
    new_signing_secret,
    read_key,
)
from pubsubflow.store.subscribers import Subscribers

PATH = "/api/v1/subscriptions"
_LIST = "subscriptions"
_NAME = Annotated[UUID, Meta(description="Id of the subscription.")]
_TEST_SECONDS = 60.0
_RESOLVE_SECONDS = 5.0

Text = Annotated[str, Meta(min_length=1, max_length=512)]


class SubscriptionRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to create a subscription.

    Attributes:
        url: The URL that events are posted to.
        dataset: URI, or a pattern with `*` and `**`; all datasets if left out.
        dags: Only events that tasks of these DAGs emit.
        where: CEL over `event`; only events for which it is true.
        mode: How a CloudEvent is encoded: as JSON, or as headers and data.
        ordered: Whether events are delivered one after the other, in the log's order; else several
            side by side.
        description: For people.
        secret: `whsec_…`; a new one if left out.
    """

    url: str
    dataset: str | None = None
    dags: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()
    where: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None
    mode: Mode = "structured"
    ordered: bool = True
    description: Annotated[str, Meta(max_length=500)] = ""
    secret: str | None = None


class SubscriptionUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to change a subscription.

    Attributes:
        paused: Whether deliveries are suspended.
    """

    paused: bool


class SubscriptionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of subscriptions."""

    limit: Limit = 50
    after: Cursor | None = None


_request_decoder = msgspec.json.Decoder(SubscriptionRequest)
_update_decoder = msgspec.json.Decoder(SubscriptionUpdate)


class SubscriptionRoutes:
    """Handlers of `/api/v1/subscriptions`.

    Args:
        subscribers: The stored subscriptions.
        bus: Announces changes to the daemon that delivers.
        allow_private: Returns whether a URL may lead to this machine or its networks now.
    """

    def __init__(
        self, subscribers: Subscribers, bus: Bus, *, allow_private: Callable[[], bool]
    ) -> None:
        self._subscribers = subscribers
        self._bus = bus
        self._allow_private = allow_private

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        one, names = f"{PATH}/{{id}}", {"id": _NAME}
        yield routing.get(
            PATH,
            self.list_all,
            query=SubscriptionsQuery,
            responses={200: Page[SubscriptionView]},
            etag=True,
        )
        yield routing.post(
            PATH,
            self.create,
            access=Access.OPERATOR,
            query=NoQuery,
            body=SubscriptionRequest,
            responses={201: CreatedSubscription},
        )
        yield routing.get(
            one,
            self.show,
            query=NoQuery,
            responses={200: SubscriptionView},
            names=names,
            etag=True,
        )
        for method, handler, body_ in (
            ("PATCH", self.change, SubscriptionUpdate),
            ("DELETE", self.delete, None),
        ):
            yield Route(
                method=method,
                path=one,
                handler=handler,
                access=Access.OPERATOR,
                query=NoQuery,
                body=body_,
                responses={200: SubscriptionView},
                names=names,
                if_match=True,
            )
        yield routing.post(
            f"{one}/test",
            self.test,
            access=Access.OPERATOR,
            query=NoQuery,
            responses={200: TestedDelivery},
            names=names,
        )

    async def list_all(self, request: web.Request) -> web.Response:
        """List subscriptions, the oldest first."""
        params = parse_query(request, SubscriptionsQuery)
        after = read_cursor(_LIST, params.after, UUID)
        page = await self._subscribers.page(limit=params.limit, after=after)
        return json_with_etag(request, with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a subscription."""
        found = await self._subscribers.get(_id(request))
        return json_with_etag(request, found, revision=found.revision)

    async def create(self, request: web.Request) -> web.Response:
        """Subscribe a URL to events from now on; only this response shows the secret."""
        payload = await parse_body(request, _request_decoder)
        spec = await self._checked(payload)
        secret = new_signing_secret() if payload.secret is None else payload.secret
        try:
            read_key(secret)
        except InvalidInput as error:
            raise BadRequest(str(error), field="secret") from error
        made = await self._subscribers.create(spec, secret)
        self._bus.publish(CHANGED, b"")
        response = json_response(made, status=201)
        response.headers["Location"] = f"{PATH}/{made.id}"
        return response

    async def change(self, request: web.Request) -> web.Response:
        """Pause or resume a subscription; return it."""
        paused = (await parse_body(request, _update_decoder)).paused
        state: State = "paused" if paused else "active"
        found = await self._subscribers.set_state(_id(request), state, expected_revisions(request))
        self._bus.publish(CHANGED, b"")
        return json_response(found)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a subscription; return what it was."""
        found = await self._subscribers.get(_id(request))
        await self._subscribers.delete(UUID(found.id), expected_revisions(request))
        self._bus.publish(CHANGED, b"")
        return json_response(found)

    async def test(self, request: web.Request) -> web.Response:
        """Send a test event; return the receiver's reply."""
        found = await self._subscribers.get(_id(request))
        data = await self._bus.request(TEST, found.id.encode(), _TEST_SECONDS)
        return json_response(msgspec.json.decode(data, type=TestedDelivery))

    async def _checked(self, payload: SubscriptionRequest) -> SubscriptionSpec:
        try:
            host, port = check_url(payload.url)
        except InvalidInput as error:
            raise BadRequest(str(error), field="url") from error
        if not self._allow_private():
            await _check_address(host, port)
        dataset = None
        try:
            if payload.dataset is not None:
                dataset = normalise_uri(payload.dataset)
        except DefinitionError as error:
            raise BadRequest(str(error), field="dataset") from error
        try:
            if payload.where is not None:
                check_expression(payload.where, ("event",), condition=True)
        except DefinitionError as error:
            raise BadRequest(str(error), field="where") from error
        return SubscriptionSpec(
            payload.url,
            dataset,
            payload.dags,
            payload.where,
            payload.mode,
            payload.ordered,
            payload.description,
        )


async def _check_address(host: str, port: int) -> None:
    """Refuse a host that resolves to a private address.

    Raises:
        BadRequest: It does, or cannot be resolved.
    """
    # Only for an early error: the sender checks the address of every connection it makes.
    found: list[str] = []
    try:
        with anyio.move_on_after(_RESOLVE_SECONDS):
            found = [str(each[4][0]) for each in await getaddrinfo(host, port)]
    except (OSError, UnicodeError) as error:
        raise BadRequest(f"the host {host} cannot be resolved: {error}", field="url") from error
    private = [address for address in found if not is_public(address)]
    if private:
        raise BadRequest(
            f"{host} is {private[0]}, which is not a public address: set "
            "subscriptions.allow_private = true if events may be sent there",
            field="url",
        )


def _id(request: web.Request) -> UUID:
    text = request.match_info["id"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("subscription", text) from None
