"""The token cache authenticates requests from memory, without a query to Postgres for each."""

import asyncio
import hmac
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

import anyio
import structlog
from aiohttp import web

from pubsubflow.errors import BusUnavailable, StoreUnavailable, Unavailable
from pubsubflow.model.auth import LOCAL, Principal, Role, Session, Token, digest_of, new_token
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.auth import SessionStore, TokenStore
from pubsubflow.wakeup import Wakeups

log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 5.0
# A flood of unknown tokens costs one query in that time.
_REFRESH_INTERVAL_SECONDS = 0.25
_STALE_SECONDS = 60.0
_READ_SECONDS = 10.0


class TokenCache:
    """All live tokens and sessions; follows the changes of all daemons on the same database.

    A new or revoked token takes effect here at once when NATS delivers the message, and within
    `sweep_seconds` without it. Once Postgres has been out of reach for a minute every token is
    refused.

    Args:
        tokens: The stored tokens.
        sessions: The stored sessions of browsers.
        wakeups: Notify when tokens have changed.
        always: Whether a token is required even if none was ever created.
        publish: Announces to all daemons, this one too, that tokens have changed.
        people: Whether people sign in by OpenID Connect; their sessions count only then.
        sweep_seconds: Interval of the safety net that reads them anyway.
        now: Returns the current time.

    Attributes:
        own: A token of this daemon alone, with which its home's owner may do everything.
    """

    def __init__(
        self,
        tokens: TokenStore,
        sessions: SessionStore,
        wakeups: Wakeups,
        *,
        always: bool,
        publish: Callable[[], None],
        people: bool = False,
        sweep_seconds: float = _SWEEP_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.own = new_token()
        self._own_digest = digest_of(self.own)
        self._tokens = tokens
        self._sessions = sessions
        self._wakeups = wakeups
        self._publish = publish
        self._people = people
        self._sweep_seconds = sweep_seconds
        self._now = now
        self._required = self._always = always
        self._by_digest: dict[bytes, Token] = {}
        self._by_id: dict[UUID, Token] = {}
        self._sessions_by_digest: dict[bytes, Session] = {}
        self._tried_at = self._read_at = -math.inf
        self._unavailable = False
        self._loading, self._refreshing = anyio.Lock(), anyio.Lock()
        self._used: dict[UUID, datetime] = {}
        self._sessions_used: dict[UUID, datetime] = {}
        self._served: dict[UUID, set[asyncio.Transport]] = {}

    @property
    def required(self) -> bool:
        """Whether requests need a token; true until the tokens were read for the first time."""
        return self._required or not self.loaded

    @property
    def loaded(self) -> bool:
        """Whether the tokens were ever read."""
        return self._read_at != -math.inf

    @property
    def has_live(self) -> bool:
        """Whether there is a live token."""
        now = self._now()
        return any(token.is_live(now) for token in self._by_digest.values())

    async def authenticate(self, secret: str | None, cookie: str | None = None) -> Principal | None:
        """Return the principal of a token, or of a request without one; None if it is refused.

        Args:
            secret: The token.
            cookie: A session's cookie; a token goes before it.

        Raises:
            StoreUnavailable: Postgres was out of reach for too long to decide.
        """
        digest = b"" if secret is None else digest_of(secret)
        # Constant-time, here and below: the time of a comparison must not reveal a digest.
        if hmac.compare_digest(digest, self._own_digest):
            return Principal(name=LOCAL, role=Role.ADMIN, owner=True)
        session_digest = b"" if secret is not None or cookie is None else digest_of(cookie)
        if self._is_unknown(digest, session_digest):
            await self._refresh()
        if self._read_at + _STALE_SECONDS < monotonic():
            raise StoreUnavailable("tokens cannot be checked: Postgres is out of reach")
        principal = self._of_session(session_digest)
        if principal is not None:
            return principal
        if not self._required:
            return Principal(name=LOCAL, role=Role.ADMIN)
        token = self._by_digest.get(digest)
        if token is None or not hmac.compare_digest(token.digest, digest):
            return None
        now = self._now()
        if not token.is_live(now):
            return None
        self._used[token.id] = now
        return Principal.of(token)

    def expiry_of(self, principal: Principal) -> datetime | None:
        """Return when the session of a principal ends; None without one."""
        found = self._sessions_by_digest.values()
        return next((each.expires_at for each in found if each.id == principal.session), None)

    def _is_unknown(self, digest: bytes, session_digest: bytes) -> bool:
        """Whether another daemon may know a token or a cookie that is not known here yet."""
        if session_digest:
            return session_digest not in self._sessions_by_digest
        return self.required and digest != b"" and digest not in self._by_digest

    def _of_session(self, digest: bytes) -> Principal | None:
        """Return the principal of a session by its cookie, with the role that its token has now."""
        session = self._sessions_by_digest.get(digest)
        if session is None or not hmac.compare_digest(session.digest or b"", digest):
            return None
        now = self._now()
        if not session.is_live(now):
            return None
        if session.token is None:
            principal = self._without_token(session)
            if principal is not None:
                self._sessions_used[session.id] = now
            return principal
        token = self._by_id.get(session.token)
        if token is None or not token.is_live(now):
            return None
        self._sessions_used[session.id] = self._used[token.id] = now
        return Principal.of(token, session=session.id)

    def _without_token(self, session: Session) -> Principal | None:
        """Return the principal of a live session that stands by itself."""
        if session.role is not None:
            return Principal.of_person(session, session.role) if self._people else None
        # One that was made while no token was needed ends with the first token.
        if self._required and not session.owner:
            return None
        return Principal(
            name=session.name, role=Role.ADMIN, session=session.id, owner=session.owner
        )

    @contextmanager
    def serving(self, principal: Principal, request: web.BaseRequest) -> Iterator[None]:
        """Abort a request's connection if its token or session ends within the block."""
        connection = request.transport
        keys = [each for each in (principal.token, principal.session) if each is not None]
        if connection is None or not keys:
            yield
            return
        for key in keys:
            self._served.setdefault(key, set()).add(connection)
        try:
            yield
        finally:
            for key in keys:
                served = self._served.get(key, set())
                served.discard(connection)
                if not served:
                    self._served.pop(key, None)

    def exempt(self, request: web.BaseRequest) -> None:
        """Keep a request's connection open even if the request revokes its own token."""
        for served in self._served.values():
            if request.transport is not None:
                served.discard(request.transport)

    async def announce_change(self) -> None:
        """Apply a change that was just stored: here at once, and in all other daemons."""
        await self.load()
        try:
            self._publish()
        except BusUnavailable as error:
            # The other daemons find it by their sweep.
            log.warning("tokens.announce_failed", reason=str(error))

    async def load(self) -> None:
        """Read the live tokens; those known before stay in force while Postgres is away."""
        async with self._loading:
            # The age of what is read counts from before the query: a token that is revoked while
            # it runs may still be in its result.
            self._tried_at = began = monotonic()
            try:
                with anyio.fail_after(_READ_SECONDS):
                    found = await self._tokens.credentials()
                    await self._note_used()
            except (Unavailable, TimeoutError) as error:
                if not self._unavailable:
                    log.warning("tokens.load_failed", reason=str(error))
                self._unavailable = True
                return
            self._unavailable = False
            self._by_digest = {token.digest: token for token in found.tokens}
            self._by_id = {token.id: token for token in found.tokens}
            self._sessions_by_digest = {each.digest: each for each in found.sessions if each.digest}
            self._required = self._always or found.any_created
            self._read_at = began
        self._abort_ended()

    async def run(self) -> None:
        """Keep the tokens up to date until cancelled."""
        await self._wakeups.refresh(
            self.load, Subjects.TOKENS_CHANGED, sweep_seconds=self._sweep_seconds
        )

    async def _refresh(self) -> None:
        """Read the tokens once more: one may just have been created by another daemon."""
        started_at = monotonic()
        async with self._refreshing:
            # Those who waited for the lock take the result of the one before them.
            if self._tried_at < started_at:
                await anyio.sleep(max(self._tried_at + _REFRESH_INTERVAL_SECONDS - started_at, 0))
                await self.load()

    async def _note_used(self) -> None:
        if self._used:
            used, self._used = self._used, {}
            await self._tokens.record_uses(used)
        if self._sessions_used:
            used, self._sessions_used = self._sessions_used, {}
            await self._sessions.record_uses(used)

    def _abort_ended(self) -> None:
        """Abort the connections that are served to ended tokens and sessions."""
        now = self._now()
        live = {token.id for token in self._by_digest.values() if token.is_live(now)}
        live |= {each.id for each in self._sessions_by_digest.values() if each.is_live(now)}
        for ended in self._served.keys() - live:
            for connection in self._served[ended]:
                connection.abort()
