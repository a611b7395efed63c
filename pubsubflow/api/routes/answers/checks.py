"""Routes of checks: their results, and the events that they hold."""

from collections.abc import Iterable
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.auth.middleware import PRINCIPAL, note_object
from pubsubflow.api.auth.scopes import check_dataset
from pubsubflow.api.http import routing
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, seen_page, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, PageQuery, parse_body, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.http.shown import rights_of_request
from pubsubflow.errors import DefinitionError, NotFound
from pubsubflow.model.api.checks import CheckResultView, CheckView, HeldEventView, SettledEvents
from pubsubflow.model.api.resources import Page
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.schedule.checks import CHECK_PREFIX
from pubsubflow.model.wire.commands import CommandHandler, SettleHeldEvents
from pubsubflow.store.read.checks.checks import ReadChecks

_CHECKS, _RESULTS, _HELD = "checks", "check-results", "held-events"
MOST_EVENTS = 500
Text = Annotated[str, Meta(min_length=1, max_length=512)]
Uri = Annotated[str, Meta(min_length=1, max_length=2000)]
Note = Annotated[str, Meta(max_length=1000)]


class CheckResultQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of results of checks.

    Attributes:
        check: Only those of the check of this name.
        dataset: Only those about events of this URI.
        event: Only those about this event.
        outcome: Only those with this outcome.
    """

    limit: Limit = 50
    after: Cursor | None = None
    check: Text | None = None
    dataset: Uri | None = None
    event: UUID | None = None
    outcome: Literal["waiting", "passed", "failed", "error", "removed"] | None = None


class HeldEventQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of held events.

    Attributes:
        check: Only those that the check of this name holds.
        dataset: Only those of this URI.
    """

    limit: Limit = 50
    after: Cursor | None = None
    check: Text | None = None
    dataset: Uri | None = None


class SettleRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a request to release or discard held events, or to check them again.

    Attributes:
        events: Their ids; or leave them out and name a check or a dataset.
        check: Events that the check of this name holds; with `events`, the one that checks again.
        dataset: Events of this URI.
        waiting: Also events that only wait for a check, which has failed none of them.
        note: Why, in one line.
    """

    events: Annotated[tuple[UUID, ...], Meta(max_length=MOST_EVENTS)] = ()
    check: Text | None = None
    dataset: Uri | None = None
    waiting: bool = False
    note: Note = ""


_decoder = msgspec.json.Decoder(SettleRequest)


class CheckRoutes:
    """Handlers of `/api/v1/checks`, `/api/v1/check-results` and `/api/v1/held-events`.

    Args:
        commands: The manager.
        checks: What is stored about checks.
    """

    def __init__(self, commands: CommandHandler, checks: ReadChecks) -> None:
        self._commands = commands
        self._checks = checks

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        held = "/api/v1/held-events"
        yield routing.get(
            "/api/v1/checks", self.list_all, query=PageQuery, responses={200: Page[CheckView]}
        )
        yield routing.get(
            "/api/v1/checks/{name}", self.show, query=NoQuery, responses={200: CheckView}
        )
        yield routing.get(
            "/api/v1/check-results",
            self.list_results,
            query=CheckResultQuery,
            responses={200: Page[CheckResultView]},
            problems=(404,),
        )
        yield routing.get(
            held,
            self.list_held,
            query=HeldEventQuery,
            responses={200: Page[HeldEventView]},
            problems=(404,),
        )
        for action, handler in (
            ("release", self.release),
            ("discard", self.discard),
            ("run-again", self.run_again),
        ):
            yield routing.post(
                f"{held}/{action}",
                handler,
                access=Access.OPERATOR,
                query=NoQuery,
                body=SettleRequest,
                responses={200: SettledEvents},
                problems=(404,),
            )

    async def list_all(self, request: web.Request) -> web.Response:
        """List checks by name."""
        params = parse_query(request, PageQuery)
        after = read_cursor(_CHECKS, params.after, str)
        page = await seen_page(
            lambda after, limit: self._checks.page(limit=limit, after=after),
            after,
            params.limit,
            str,
        )
        return json_response(with_cursor(_CHECKS, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a check."""
        name = request.match_info["name"]
        _check_seen(name, None)
        return json_response(await self._checks.get(name))

    async def list_results(self, request: web.Request) -> web.Response:
        """List what checks have found, the newest first."""
        params = parse_query(request, CheckResultQuery)
        dataset = _uri(params.dataset)
        _check_seen(params.check, dataset)
        page = await seen_page(
            lambda after, limit: self._checks.results(
                limit=limit,
                after=after,
                check=params.check,
                dataset=dataset,
                event=params.event,
                outcome=params.outcome,
            ),
            read_cursor(_RESULTS, params.after, Number),
            params.limit,
        )
        return json_response(with_cursor(_RESULTS, page))

    async def list_held(self, request: web.Request) -> web.Response:
        """List events that checks hold, the newest first."""
        params = parse_query(request, HeldEventQuery)
        dataset = _uri(params.dataset)
        _check_seen(params.check, dataset)
        page = await seen_page(
            lambda after, limit: self._checks.held(
                limit=limit, after=after, check=params.check, dataset=dataset
            ),
            read_cursor(_HELD, params.after, Number),
            params.limit,
        )
        return json_response(with_cursor(_HELD, page))

    async def release(self, request: web.Request) -> web.Response:
        """Release held events: they reach their subscribers although a check has not passed."""
        return await self._settle(request, "release", await parse_body(request, _decoder))

    async def discard(self, request: web.Request) -> web.Response:
        """Discard held events: no subscriber ever gets them."""
        return await self._settle(request, "discard", await parse_body(request, _decoder))

    async def run_again(self, request: web.Request) -> web.Response:
        """Check held events again, by the checks as they are now."""
        return await self._settle(request, "run-again", await parse_body(request, _decoder))

    async def _settle(
        self,
        request: web.Request,
        action: Literal["release", "discard", "run-again"],
        wanted: SettleRequest,
    ) -> web.Response:
        events, more = list(wanted.events), False
        dataset = _uri(wanted.dataset)
        if wanted.check is not None:
            await self._checks.get(wanted.check)
        if not events:
            if wanted.check is None and dataset is None:
                raise BadRequest("name events, or a check or dataset", field="events")
            events = await self._checks.next_held(
                MOST_EVENTS + 1, check=wanted.check, dataset=dataset, ended=not wanted.waiting
            )
            more = len(events) > MOST_EVENTS
            events = events[:MOST_EVENTS]
        named = ", ".join(filter(None, (wanted.check, dataset, *map(str, wanted.events[:3]))))
        note_object(request, named)
        check = None if wanted.check is None else CHECK_PREFIX + wanted.check
        done: list[str] = await self._commands.execute(
            SettleHeldEvents(action, tuple(events), request[PRINCIPAL].name, wanted.note, check)
        )
        return json_response(SettledEvents(events=done, more=more))


def _check_seen(check: str | None, dataset: str | None) -> None:
    """Check that the principal of the request may see a check, and a dataset.

    Raises:
        NotFound: It may not.
    """
    rights = rights_of_request()
    check_dataset(rights, dataset)
    if rights is not None and check is not None and not rights.sees_dag(CHECK_PREFIX + check):
        raise NotFound("check", check)


def _uri(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return normalise_uri(text)
    except DefinitionError as error:
        raise BadRequest(str(error), status=400, field="dataset") from error
