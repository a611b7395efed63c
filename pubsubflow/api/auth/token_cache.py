"""The tokens in force, in memory: who asks is known without a question to the database."""

import asyncio
import hmac
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import anyio
import structlog
from aiohttp import web

from pubsubflow.errors import BusUnavailable, StoreUnavailable, Unavailable
from pubsubflow.model.auth import Asker, Role, Token, digest_of, new_secret
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.auth import Tokens
from pubsubflow.wakeup import Bells

log = structlog.get_logger(__name__)

LOCAL = "local"
"""What who needs no token is called, or shows the one that a home keeps for its owner."""

_SWEEP_SECONDS = 5.0
_PAUSE_SECONDS = 0.25  # a flood of wrong tokens costs one question in that time
_STALE_SECONDS = 60.0
_READ_SECONDS = 10.0
_RETRY_SECONDS = 1.0


class Keys:
    """All tokens that count; follows what daemons on the same database change.

    A token that is made or revoked is known here at once through the bus, without it within
    `sweep_seconds`. When Postgres has been away for a minute, nobody is believed any more.

    Args:
        tokens: Reads the tokens.
        bells: Ring when tokens changed.
        always: Whether a token is needed even if there never was one.
        tell: Tells all daemons, this one too, that tokens changed.
        sweep_seconds: Safety net: read them anyway after that long without news.
        now: The time.

    Attributes:
        own: A token of this daemon alone, with which its home's owner may do everything.
    """

    def __init__(
        self,
        tokens: Tokens,
        bells: Bells,
        *,
        always: bool,
        tell: Callable[[], None],
        sweep_seconds: float = _SWEEP_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.own = new_secret()
        self._own_digest = digest_of(self.own)
        self._tokens = tokens
        self._bells = bells
        self._tell = tell
        self._sweep_seconds = sweep_seconds
        self._now = now
        self._needed = self._always = always
        self._known: dict[bytes, Token] = {}
        self._tried_at = self._read_at = -math.inf
        self._away = False
        self._reading, self._looking = anyio.Lock(), anyio.Lock()
        self._used: dict[UUID, datetime] = {}
        self._served: dict[UUID, set[asyncio.Transport]] = {}

    @property
    def needed(self) -> bool:
        """Whether one has to show a token; also while nobody can tell."""
        return self._needed or not self.known

    @property
    def known(self) -> bool:
        """Whether the tokens were ever read."""
        return self._read_at != -math.inf

    @property
    def some(self) -> bool:
        """Whether there is a token that counts."""
        now = self._now()
        return any(token.live(now) for token in self._known.values())

    async def who(self, secret: str | None) -> Asker | None:
        """Return who shows a token, or nothing; nobody if it does not count.

        Raises:
            StoreUnavailable: Nobody can tell.
        """
        digest = b"" if secret is None else digest_of(secret)
        if hmac.compare_digest(digest, self._own_digest):
            return Asker(name=LOCAL, role=Role.ADMIN)
        if self.needed and secret is not None and digest not in self._known:
            await self._refresh()
        if self._read_at + _STALE_SECONDS < anyio.current_time():
            raise StoreUnavailable("nobody can tell who may ask: Postgres is out of reach")
        if not self._needed:
            return Asker(name=LOCAL, role=Role.ADMIN)
        token = self._known.get(digest)
        if token is None or not hmac.compare_digest(token.digest, digest):
            return None
        now = self._now()
        if not token.live(now):
            return None
        self._used[token.id] = now
        return Asker.of(token)

    @contextmanager
    def serving(self, asker: Asker, request: web.BaseRequest) -> Iterator[None]:
        """Serve a request; its connection breaks if the token ends meanwhile."""
        connection = request.transport
        if asker.token is None or connection is None:
            yield
            return
        served = self._served.setdefault(asker.token, set())
        served.add(connection)
        try:
            yield
        finally:
            served.discard(connection)
            if not served:
                self._served.pop(asker.token, None)

    def spare(self, request: web.BaseRequest) -> None:
        """Let a request be answered even if it ends its own token."""
        for served in self._served.values():
            if request.transport is not None:
                served.discard(request.transport)

    async def changed(self) -> None:
        """Take a change that was just made into account, here and in all daemons."""
        await self.load()
        try:
            self._tell()
        except BusUnavailable as error:
            log.warning("tokens.untold", reason=str(error))

    async def load(self) -> None:
        """Read which tokens count; those that did still do while nobody can tell."""
        async with self._reading:
            self._tried_at = began = anyio.current_time()
            try:
                with anyio.fail_after(_READ_SECONDS):
                    some, tokens = await self._tokens.live()
                    await self._note_used()
            except (Unavailable, TimeoutError) as error:
                if not self._away:
                    log.warning("tokens.unknown", reason=str(error))
                self._away = True
                return
            self._away = False
            self._known = {token.digest: token for token in tokens}
            self._needed = self._always or some
            self._read_at = began
        self._end()

    async def follow(self) -> None:
        """Keep them up to date until cancelled."""
        while True:
            try:
                async with self._bells.on(Subjects.TOKENS_CHANGED) as bell:
                    while True:
                        await self.load()
                        await bell.wait(self._sweep_seconds)
            except BusUnavailable as error:
                log.warning("tokens.deaf", reason=str(error))
            await self.load()
            await anyio.sleep(_RETRY_SECONDS)

    async def _refresh(self) -> None:
        """Read the tokens once more: one may just have been made elsewhere."""
        asked_at = anyio.current_time()
        async with self._looking:
            if self._tried_at < asked_at:
                await anyio.sleep(max(self._tried_at + _PAUSE_SECONDS - asked_at, 0))
                await self.load()

    async def _note_used(self) -> None:
        if self._used:
            used, self._used = self._used, {}
            await self._tokens.note_used(used)

    def _end(self) -> None:
        """Break off what is served to those whose token has ended."""
        now = self._now()
        live = {token.id for token in self._known.values() if token.live(now)}
        for gone in self._served.keys() - live:
            for connection in self._served[gone]:
                connection.abort()
