"""What could not be done and waits for a person."""

from collections.abc import Iterable

from aiohttp import web
from msgspec import Struct

from pubsubflow.api.answers import answer
from pubsubflow.api.questions import Limit, query
from pubsubflow.store.reading import Reading


class LettersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of the list of dead letters."""

    limit: Limit = 50
    after: int | None = None


class DeadLetters:
    """Handlers of `/api/v1/dead-letters`."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def routes(self) -> Iterable[web.RouteDef]:
        """Return what is served."""
        yield web.get("/api/v1/dead-letters", self.list_letters)

    async def list_letters(self, request: web.Request) -> web.Response:
        """List dead letters, the newest first."""
        asked = query(request, LettersQuery)
        return answer(await self._reading.dead_letters(limit=asked.limit, after=asked.after))
