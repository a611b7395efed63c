"""Routes of dead letters: list, show and resend what could not be processed."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import expected_revisions, json_with_etag
from pubsubflow.api.http.pagination import Cursor, Number, read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, decode_body, parse_query
from pubsubflow.api.http.responses import encode, json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.webhooks import DEAD_LETTER_KIND, WebhookRoutes
from pubsubflow.errors import NotFound
from pubsubflow.model.api.explain import DeadLetterDetail, DeadLetterView, Resent
from pubsubflow.model.api.resources import Page
from pubsubflow.model.wire.commands import CommandHandler, RecordEvents, RedriveDeadLetter
from pubsubflow.store.read.read_models import ReadModels

_LIST = "dead-letters"


class DeadLetterQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of dead letters.

    Attributes:
        resent: Also those that were sent again.
    """

    limit: Limit = 50
    after: Cursor | None = None
    resent: bool = False


class ResendRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to resend a dead letter.

    Attributes:
        payload: JSON in place of the letter's own; null to leave it.
    """

    payload: Any = None


_resend_decoder = msgspec.json.Decoder(ResendRequest)


class DeadLetterRoutes:
    """Handlers of `/api/v1/dead-letters`.

    Args:
        commands: Redrives dead letters.
        read_models: Reads dead letters.
        webhooks: Makes events of the requests in dead letters of webhooks.
    """

    def __init__(
        self, commands: CommandHandler, read_models: ReadModels, webhooks: WebhookRoutes
    ) -> None:
        self._commands = commands
        self._read_models = read_models
        self._webhooks = webhooks

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        one = "/api/v1/dead-letters/{number}"
        yield routing.get(
            "/api/v1/dead-letters",
            self.list_all,
            query=DeadLetterQuery,
            responses={200: Page[DeadLetterView]},
            etag=True,
        )
        yield routing.get(
            one, self.show, query=NoQuery, responses={200: DeadLetterDetail}, etag=True
        )
        yield routing.post(
            f"{one}/resend",
            self.resend,
            access=Access.OPERATOR,
            query=NoQuery,
            body=ResendRequest,
            body_required=False,
            responses={200: Resent},
            problems=(409,),
            if_match=True,
        )

    async def list_all(self, request: web.Request) -> web.Response:
        """List dead letters, the newest first."""
        params = parse_query(request, DeadLetterQuery)
        after = read_cursor(_LIST, params.after, Number)
        page = await self._read_models.dead_letters.page(
            limit=params.limit, after=after, resent=params.resent
        )
        return json_with_etag(request, with_cursor(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a dead letter with its payload."""
        found = await self._read_models.dead_letters.get(_number(request))
        return json_with_etag(request, found, revision=found.revision)

    async def resend(self, request: web.Request) -> web.Response:
        """Resend a dead letter, as it is or edited; return the run that it started, if any."""
        number = _number(request)
        revisions = expected_revisions(request)
        payload = decode_body(await request.read() or b"{}", _resend_decoder).payload
        letter = await self._read_models.dead_letters.get(number)
        edit = None if payload is None else encode(payload)
        if edit is not None and not letter.editable:
            raise BadRequest(
                f"dead letter {number} is a message in a binary format: resend it as it is, "
                "without payload",
                field="payload",
            )
        if letter.kind == DEAD_LETTER_KIND:
            events = self._events(letter, edit)
            await self._commands.execute(RedriveDeadLetter(number, edit, revisions, events))
            return json_response(Resent(id=number))
        run_id = await self._commands.execute(RedriveDeadLetter(number, edit, revisions))
        if run_id is not None:
            await self._check_started(number, UUID(run_id))
        return json_response(Resent(id=number, run_id=run_id))

    def _events(self, letter: DeadLetterDetail, edit: bytes | None) -> RecordEvents | None:
        """Return the event that a webhook's request becomes now; None for none."""
        # Already resent: the manager refuses it, whatever the webhook would make of it now.
        if letter.resent_at is not None:
            return None
        return self._webhooks.event_of_letter(edit or encode(letter.payload), f"letter:{letter.id}")

    async def _check_started(self, number: int, run_id: UUID) -> None:
        """Check that the run exists; if it was refused again, a new dead letter holds it.

        Raises:
            BadRequest: It was refused again.
        """
        try:
            await self._read_models.runs.brief(run_id)
        except NotFound:
            newer = await self._read_models.dead_letters.find_newer(number)
            if newer is None:
                raise
            raise BadRequest(
                f"it was refused again: {newer.reason}; dead letter {newer.id} holds it now",
                status=409,
            ) from None


def _number(request: web.Request) -> int:
    text = request.match_info["number"]
    if not (text.isascii() and text.isdecimal()):
        raise NotFound("dead letter", text)
    return int(text)
