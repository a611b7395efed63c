"""What could not be done and waits for a person: listed, shown, sent again."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Struct

from pubsubflow.api.http import routing
from pubsubflow.api.http.etags import tagged, wanted
from pubsubflow.api.http.pagination import Cursor, Number, opened, sealed
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import Limit, NoQuery, check_numbers, decode, query
from pubsubflow.api.http.responses import answer, encode
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.routes.webhooks import LETTER, Hooks
from pubsubflow.errors import NotFound
from pubsubflow.model.api.explain import DeadLetterDetail, DeadLetterView, Resent
from pubsubflow.model.api.resources import Page
from pubsubflow.model.wire.commands import Calls, PostEvents, Resend
from pubsubflow.store.read.read_models import Reading

_LIST = "dead-letters"


class LettersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of dead letters.

    Attributes:
        resent: Also those that were sent again.
    """

    limit: Limit = 50
    after: Cursor | None = None
    resent: bool = False


class AskedResend(Struct, frozen=True, forbid_unknown_fields=True):
    """A request to try again.

    Attributes:
        payload: JSON in place of the letter's own; null to leave it.
    """

    payload: Any = None


_asked_resend = msgspec.json.Decoder(AskedResend)


class DeadLetters:
    """Handlers of `/api/v1/dead-letters`.

    Args:
        calls: Tries again.
        reading: Looks up dead letters.
        hooks: Knows what becomes of requests to webhooks.
    """

    def __init__(self, calls: Calls, reading: Reading, hooks: Hooks) -> None:
        self._calls = calls
        self._reading = reading
        self._hooks = hooks

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        one = "/api/v1/dead-letters/{number}"
        yield routing.get(
            "/api/v1/dead-letters",
            self.list_letters,
            query=LettersQuery,
            answers={200: Page[DeadLetterView]},
            tagged=True,
        )
        yield routing.get(
            one, self.show, query=NoQuery, answers={200: DeadLetterDetail}, tagged=True
        )
        yield routing.post(
            f"{one}/resend",
            self.resend,
            access=Access.OPERATOR,
            query=NoQuery,
            body=AskedResend,
            body_needed=False,
            answers={200: Resent},
            problems=(409,),
            matched=True,
        )

    async def list_letters(self, request: web.Request) -> web.Response:
        """List dead letters, the newest first."""
        asked = query(request, LettersQuery)
        after = opened(_LIST, asked.after, Number)
        page = await self._reading.letters.page(limit=asked.limit, after=after, resent=asked.resent)
        return tagged(request, sealed(_LIST, page))

    async def show(self, request: web.Request) -> web.Response:
        """Show a dead letter with its payload."""
        query(request, NoQuery)
        found = await self._reading.letters.get(_number(request))
        return tagged(request, found, revision=found.revision)

    async def resend(self, request: web.Request) -> web.Response:
        """Try a dead letter again, as it is or edited; answer with the run that it made, if any."""
        number, _ = _number(request), query(request, NoQuery)
        revisions = wanted(request)
        payload = decode(await request.read() or b"{}", _asked_resend).payload
        check_numbers([payload])
        letter = await self._reading.letters.get(number)
        edit = None if payload is None else encode(payload)
        if edit is not None and not letter.editable:
            raise BadRequest(
                f"dead letter {number} is a message of the bus, whose form is its own: it can be "
                "sent again as it is, not edited",
                field="payload",
            )
        if letter.kind == LETTER:
            events = self._events(letter, edit)
            await self._calls.call(Resend(number, edit, revisions, events))
            return answer(Resent(id=number))
        run_id = await self._calls.call(Resend(number, edit, revisions))
        if run_id is not None:
            await self._check_made(number, UUID(run_id))
        return answer(Resent(id=number, run_id=run_id))

    def _events(self, letter: DeadLetterDetail, edit: bytes | None) -> PostEvents | None:
        """Return what a request to a webhook becomes after all; None for nothing."""
        if letter.resent_at is not None:
            return None
        return self._hooks.again(edit or encode(letter.payload), f"letter:{letter.id}")

    async def _check_made(self, number: int, run_id: UUID) -> None:
        """Tell when the run was refused again; a new letter holds it then."""
        try:
            await self._reading.runs.brief(run_id)
        except NotFound:
            newer = await self._reading.letters.refused_again(number)
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
