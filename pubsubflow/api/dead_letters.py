"""What could not be done and waits for a person: listed, shown, sent again."""

from collections.abc import Iterable
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from pubsubflow.api import routing
from pubsubflow.api.answers import answer, encode
from pubsubflow.api.hooks import LETTER, Hooks
from pubsubflow.api.problems import BadRequest
from pubsubflow.api.questions import Limit, NoQuery, decode, query
from pubsubflow.api.routing import Access, Route
from pubsubflow.errors import NotFound
from pubsubflow.model.calls import Calls, Resend
from pubsubflow.model.why_views import Resent
from pubsubflow.store.reading import Reading

_NULL = b"null"


class LettersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of dead letters.

    Attributes:
        resent: Also those that were sent again.
    """

    limit: Limit = 50
    after: int | None = None
    resent: bool = False


class AskedResend(Struct, frozen=True, forbid_unknown_fields=True):
    """A request to try again.

    Attributes:
        payload: JSON in place of the letter's own; null to leave it.
    """

    payload: Raw = Raw(_NULL)


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
        yield routing.get("/api/v1/dead-letters", self.list_letters)
        yield routing.get("/api/v1/dead-letters/{number}", self.show)
        yield routing.post(
            "/api/v1/dead-letters/{number}/resend", self.resend, access=Access.OPERATOR
        )

    async def list_letters(self, request: web.Request) -> web.Response:
        """List dead letters, the newest first."""
        asked = query(request, LettersQuery)
        return answer(
            await self._reading.letters.page(
                limit=asked.limit, after=asked.after, resent=asked.resent
            )
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show a dead letter with its payload."""
        query(request, NoQuery)
        return answer(await self._reading.letters.get(_number(request)))

    async def resend(self, request: web.Request) -> web.Response:
        """Try a dead letter again, as it is or edited; answer with the run that it made, if any."""
        number = _number(request)
        payload = bytes(decode(await request.read() or b"{}", _asked_resend).payload)
        letter = await self._reading.letters.get(number)
        edited = payload != _NULL
        if edited and not letter.editable:
            raise BadRequest(
                f"dead letter {number} is a message of the bus, whose form is its own: it can be "
                "sent again as it is, not edited",
                field="payload",
            )
        if letter.kind == LETTER and letter.resent_at is None:
            await self._deliver(number, payload if edited else encode(letter.payload))
        run_id = await self._calls.call(Resend(number, payload if edited else None))
        if run_id is not None:
            await self._check_made(number, UUID(run_id))
        return answer(Resent(id=number, run_id=run_id))

    async def _deliver(self, number: int, payload: bytes) -> None:
        """Let what was sent to a webhook become an event after all."""
        event = self._hooks.again(payload, f"letter:{number}")
        if event is not None:
            await self._calls.call(event)

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
