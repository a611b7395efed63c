"""Who wants events at a URL: made, listed, paused, tried, deleted."""

from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from anyio import getaddrinfo
from msgspec import Meta, Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged, wanted
from pubsubflow.api.http.pagination import Cursor, opened, sealed
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, body, query
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.bus import Bus
from pubsubflow.errors import DefinitionError, InvalidInput, NotFound
from pubsubflow.model.api.resources import Page
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.expressions import compile_expression
from pubsubflow.model.subscriptions import (
    CHANGED,
    TEST,
    CreatedSubscription,
    Mode,
    State,
    SubscriptionView,
    TestedDelivery,
    Wanted,
    check_url,
    is_public,
    new_secret,
    read_key,
)
from pubsubflow.store.subscribers import Subscribers

PATH = "/api/v1/subscriptions"
_LIST = "subscriptions"
_NAME = Annotated[UUID, Meta(description="Id of the subscription.")]
_TEST_SECONDS = 60.0
_RESOLVE_SECONDS = 5.0

Text = Annotated[str, Meta(min_length=1, max_length=512)]


class AskedSubscription(Struct, frozen=True, forbid_unknown_fields=True):
    """A request for events.

    Attributes:
        url: Where they are posted to.
        dataset: URI, or a pattern with `*` and `**`; all datasets if left out.
        dags: Only events that tasks of these DAGs emit.
        where: CEL over `event`; only events for which it is true.
        mode: How a CloudEvent is written: as JSON, or as headers and data.
        ordered: One after the other in the log's order; else several side by side.
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


class ChangedSubscription(Struct, frozen=True, forbid_unknown_fields=True):
    """What can be changed about a subscription.

    Attributes:
        paused: Whether nothing is delivered for a while.
    """

    paused: bool


class SubscriptionsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of subscriptions."""

    limit: Limit = 50
    after: Cursor | None = None


_asked = msgspec.json.Decoder(AskedSubscription)
_changed = msgspec.json.Decoder(ChangedSubscription)


class SubscriptionRoutes:
    """Handlers of `/api/v1/subscriptions`.

    Args:
        subscribers: Where they are.
        bus: Tells whoever delivers.
        allow_private: Whether a URL may lead to this machine or its networks.
    """

    def __init__(self, subscribers: Subscribers, bus: Bus, *, allow_private: bool) -> None:
        self._subscribers = subscribers
        self._bus = bus
        self._allow_private = allow_private

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        one, names = f"{PATH}/{{id}}", {"id": _NAME}
        yield routing.get(
            PATH,
            self.list_all,
            query=SubscriptionsQuery,
            answers={200: Page[SubscriptionView]},
            tagged=True,
        )
        yield routing.post(
            PATH,
            self.create,
            access=Access.OPERATOR,
            query=NoQuery,
            body=AskedSubscription,
            answers={201: CreatedSubscription},
        )
        yield routing.get(
            one,
            self.show,
            query=NoQuery,
            answers={200: SubscriptionView},
            names=names,
            tagged=True,
        )
        for method, handler, body_ in (
            ("PATCH", self.change, ChangedSubscription),
            ("DELETE", self.delete, None),
        ):
            yield Route(
                method=method,
                path=one,
                handler=handler,
                access=Access.OPERATOR,
                query=NoQuery,
                body=body_,
                answers={200: SubscriptionView},
                names=names,
                matched=True,
            )
        yield routing.post(
            f"{one}/test",
            self.test,
            access=Access.OPERATOR,
            query=NoQuery,
            answers={200: TestedDelivery},
            names=names,
        )

    async def list_all(self, request: web.Request) -> web.Response:
        """List subscriptions, the oldest first."""
        asked = query(request, SubscriptionsQuery)
        after = opened(_LIST, asked.after, UUID)
        page = await self._subscribers.page(limit=asked.limit, after=after)
        return tagged(request, sealed(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a subscription."""
        query(request, NoQuery)
        found = await self._subscribers.get(_id(request))
        return tagged(request, found, revision=found.revision)

    async def create(self, request: web.Request) -> web.Response:
        """Subscribe a URL to events from now on; the answer alone shows the secret."""
        query(request, NoQuery)
        asked = await body(request, _asked)
        wanted_ = await self._checked(asked)
        secret = new_secret() if asked.secret is None else asked.secret
        try:
            read_key(secret)
        except InvalidInput as error:
            raise BadRequest(str(error), field="secret") from error
        made = await self._subscribers.add(wanted_, secret)
        self._bus.publish(CHANGED, b"")
        response = answer(made, status=201)
        response.headers["Location"] = f"{PATH}/{made.id}"
        return response

    async def change(self, request: web.Request) -> web.Response:
        """Pause or resume a subscription; answer with what it is now."""
        query(request, NoQuery)
        paused = (await body(request, _changed)).paused
        state: State = "paused" if paused else "active"
        found = await self._subscribers.change(_id(request), state, wanted(request))
        self._bus.publish(CHANGED, b"")
        return answer(found)

    async def delete(self, request: web.Request) -> web.Response:
        """End a subscription; answer with what it was."""
        query(request, NoQuery)
        found = await self._subscribers.get(_id(request))
        await self._subscribers.remove(UUID(found.id), wanted(request))
        self._bus.publish(CHANGED, b"")
        return answer(found)

    async def test(self, request: web.Request) -> web.Response:
        """Send a test event; answer with what came back."""
        query(request, NoQuery)
        found = await self._subscribers.get(_id(request))
        data = await self._bus.request(TEST, found.id.encode(), _TEST_SECONDS)
        return answer(msgspec.json.decode(data, type=TestedDelivery))

    async def _checked(self, asked: AskedSubscription) -> Wanted:
        try:
            host, port = check_url(asked.url)
        except InvalidInput as error:
            raise BadRequest(str(error), field="url") from error
        if not self._allow_private:
            await _check_address(host, port)
        dataset = None
        try:
            if asked.dataset is not None:
                dataset = normalise_uri(asked.dataset)
        except DefinitionError as error:
            raise BadRequest(str(error), field="dataset") from error
        try:
            if asked.where is not None:
                compile_expression(asked.where)
        except DefinitionError as error:
            raise BadRequest(str(error), field="where") from error
        return Wanted(
            asked.url,
            dataset,
            asked.dags,
            asked.where,
            asked.mode,
            asked.ordered,
            asked.description,
        )


async def _check_address(host: str, port: int) -> None:
    """Refuse a host that is known to be no one of the internet; deliveries look again."""
    found: list[str] = []
    try:
        with anyio.move_on_after(_RESOLVE_SECONDS):
            found = [str(each[4][0]) for each in await getaddrinfo(host, port)]
    except (OSError, UnicodeError) as error:
        raise BadRequest(f"the host {host} cannot be found: {error}", field="url") from error
    private = [address for address in found if not is_public(address)]
    if private:
        raise BadRequest(
            f"{host} is {private[0]}, no address of the internet: set "
            "subscriptions.allow_private = true if events may go there",
            field="url",
        )


def _id(request: web.Request) -> UUID:
    text = request.match_info["id"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("subscription", text) from None
