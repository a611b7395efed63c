"""API tokens, sessions of browsers, and the audit log."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.auth import AuditView, NewToken, SessionView, TokenView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import (
    Credentials,
    Grant,
    Principal,
    Role,
    Session,
    Token,
    check_limits,
    check_name,
    digest_of,
    known_grants,
    new_token,
)
from pubsubflow.model.ids import new_id
from pubsubflow.model.wire.audit_entries import AuditEntry
from pubsubflow.store.database import Database, printable
from pubsubflow.store.named_queries import SQL

# Cursors before the first page.
_LAST = UUID(int=2**128 - 1)
_NEWEST = 2**63 - 1
_MAX_OBJECT_CHARACTERS = 2000
_MAX_AGENT = 300


class TokenNameTaken(InvalidInput):
    """A token that is not revoked has the name already."""


class TokenStore:
    """The stored tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        role: Role,
        *,
        datasets: Sequence[str] = (),
        grants: Sequence[Grant] = (),
        expires_at: datetime | None = None,
        by: str,
    ) -> NewToken:
        """Create a token and return it, with its text for the only time.

        Args:
            name: Unique among the tokens that are not revoked.
            role: What its holder may do.
            datasets: Patterns or URIs, for an emitter.
            grants: Roles on some DAGs and datasets, beside the role on everything.
            expires_at: When it expires, with a zone; never if None.
            by: The principal that creates it.

        Raises:
            InvalidInput: Name, limits or time do not fit.
            NameTaken: A token that is not revoked has the name.
            StoreUnavailable: Postgres is away.
        """
        secret = new_token()
        limits = check_limits(role, datasets, grants)
        facts = (new_id(), check_name(name), role, digest_of(secret), limits, by, expires_at)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["create_token"], *facts, [*map(str, grants)])
        if row is None:
            raise TokenNameTaken(
                f"a token named {name!r} exists already: revoke it, or choose another name"
            )
        return NewToken(**_token_fields(row), token=secret)

    async def page(self, *, limit: int, after: UUID | None = None) -> Page[TokenView]:
        """Return tokens, newest first, revoked and expired ones included.

        Args:
            limit: Number at most.
            after: The last id of the page before.
        """
        async with self._database.search() as connection:
            rows = await connection.fetch(SQL["list_tokens"], after or _LAST, limit)
        items = [TokenView(**_token_fields(row)) for row in rows]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def revoke(self, name: str) -> TokenView:
        """Revoke a token, given by its id or name.

        Raises:
            NotFound: No token has this id or name.
        """
        async with self._database.transaction() as connection:
            found = await connection.fetchval(SQL["find_token"], printable(name))
            if found is None:
                raise NotFound("token", name)
            row = await connection.fetchrow(SQL["revoke_token"], found)
        if row is None:
            raise NotFound("token", name)
        return TokenView(**_token_fields(row))

    async def credentials(self) -> Credentials:
        """Return all by which requests are authenticated, by one query."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_credentials"])
        found = [(row["kind"], row) for row in rows]
        return Credentials(
            any_created=any(kind == "created" for kind, _ in found),
            tokens=[_token_of(row) for kind, row in found if kind == "token"],
            sessions=[_session_of(row) for kind, row in found if kind == "session"],
        )

    async def record_uses(self, used: Mapping[UUID, datetime]) -> None:
        """Record when tokens were last used."""
        async with self._database.connection() as connection:
            ids = sorted(used)
            await connection.execute(SQL["record_token_uses"], ids, [used[each] for each in ids])


class SessionStore:
    """The stored sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        principal: Principal,
        *,
        seconds: float,
        agent: str | None = None,
        remote: str | None = None,
    ) -> tuple[Session, str]:
        """Sign a browser in; return its session, and the text of its cookie.

        Args:
            principal: Who has signed in.
            seconds: After how long it ends.
            agent: The browser, as it calls itself.
            remote: Its address.
        """
        secret = new_token()
        facts = (digest_of(secret), None, seconds, _shortened(agent, _MAX_AGENT), remote)
        return _session_of(await self._create(principal, principal.name, *facts)), secret

    async def create_person(
        self,
        name: str,
        role: Role,
        grants: Sequence[Grant],
        *,
        seconds: float,
        agent: str | None = None,
        remote: str | None = None,
    ) -> tuple[Session, str]:
        """Sign the browser of a person in; return its session, and the text of its cookie.

        Args:
            name: The person.
            role: The person's role on everything.
            grants: The person's roles on some DAGs and datasets.
            seconds: After how long it ends.
            agent: The browser, as it calls itself.
            remote: Its address.
        """
        secret = new_token()
        facts = (new_id(), printable(name), None, False, digest_of(secret), None, seconds)
        rights = (str(role), [*map(str, grants)])
        async with self._database.connection() as connection:
            await connection.execute(SQL["prune_sessions"])
            rows = await connection.fetch(
                SQL["create_session"], *facts, _shortened(agent, _MAX_AGENT), remote, *rights
            )
        return _session_of(rows[0]), secret

    async def create_link(
        self, principal: Principal, name: str, *, seconds: float
    ) -> tuple[str, datetime]:
        """Make a link's code, by which a browser signs in once; return it and when it expires."""
        code = new_token()
        row = await self._create(principal, name, None, digest_of(code), seconds, None, None)
        return code, row["expires_at"]

    async def follow_link(
        self, code: str, *, seconds: float, agent: str | None, remote: str | None
    ) -> tuple[Session, str] | None:
        """Sign a browser in by a link; None if the link is unknown, was used or has expired."""
        secret = new_token()
        facts = (digest_of(code), digest_of(secret), seconds, _shortened(agent, _MAX_AGENT), remote)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["follow_session_link"], *facts)
        return None if row is None else (_session_of(row), secret)

    async def page(
        self,
        *,
        limit: int,
        after: UUID | None = None,
        token: UUID | None = None,
        person: str | None = None,
    ) -> Page[SessionView]:
        """Return sessions that may be used, newest first.

        Args:
            limit: Number at most.
            after: The last id of the page before.
            token: Only those of this token.
            person: Only those of this person, who signed in by OpenID Connect.
        """
        async with self._database.search() as connection:
            rows = await connection.fetch(
                SQL["list_sessions"], after or _LAST, limit, token, person
            )
        items = [_view_of(row) for row in rows]
        return Page(items, items[-1].id if len(items) == limit else None)

    async def end(
        self, number: UUID, *, token: UUID | None = None, person: str | None = None
    ) -> SessionView:
        """End a session and return it.

        Args:
            number: Its id.
            token: Only if it is one of this token.
            person: Only if it is one of this person.

        Raises:
            NotFound: No session has this id.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["end_session"], number, token, person)
        if row is None:
            raise NotFound("session", str(number))
        return _view_of(row)

    async def record_uses(self, used: Mapping[UUID, datetime]) -> None:
        """Record when sessions were last used."""
        ids = sorted(used)
        async with self._database.connection() as connection:
            await connection.execute(SQL["record_session_uses"], ids, [used[each] for each in ids])

    async def _create(self, principal: Principal, name: str, *facts: object) -> asyncpg.Record:
        async with self._database.connection() as connection:
            await connection.execute(SQL["prune_sessions"])
            rows = await connection.fetch(
                SQL["create_session"],
                *(new_id(), name, principal.token, principal.owner, *facts),
                *(None, []),
            )
        return rows[0]


class AuditEnding(Struct, frozen=True):
    """The status of an action, and its object if that is known only now."""

    number: int
    status: int
    object: str | None = None


class AuditLog:
    """The audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, entry: AuditEntry) -> int:
        """Append an entry and return its id.

        Raises:
            StoreUnavailable: Postgres is away; the action must not be performed then.
        """
        async with self._database.connection() as connection:
            number: int = await connection.fetchval(SQL["record_audit_entry"], *audit_row(entry))
        return number

    async def finish(self, number: int, status: int, about: str | None = None) -> None:
        """Record the status of an action, and its object if that is known only now."""
        await self.finish_all([AuditEnding(number, status, about)])

    async def finish_all(self, endings: Sequence[AuditEnding]) -> None:
        """Record the statuses of actions; see `finish`."""
        rows = [
            (each.number, each.status, _shortened(each.object))
            for each in sorted(endings, key=lambda each: each.number)
        ]
        columns = map(list, zip(*rows, strict=True))
        async with self._database.connection() as connection:
            await connection.execute(SQL["finish_audit_entries"], *columns)

    async def page(
        self, *, limit: int, after: int | None = None, principal: str | None = None
    ) -> Page[AuditView]:
        """Return entries, newest first.

        Args:
            limit: Number at most.
            after: The last id of the page before.
            principal: Only entries of this principal.
        """
        before = after or _NEWEST
        async with self._database.search() as connection:
            if principal is None:
                rows = await connection.fetch(SQL["list_audit_entries"], before, limit)
            else:
                name = printable(principal)
                rows = await connection.fetch(SQL["list_audit_entries_of"], before, limit, name)
        items = [
            AuditView(
                id=row["id"],
                at=row["at"],
                principal=row["principal"],
                token=None if row["token"] is None else str(row["token"]),
                remote=row["remote"],
                action=row["action"],
                object=row["object"],
                status=row["status"],
                times=row["times"],
            )
            for row in rows
        ]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def prune(self, keep: timedelta) -> None:
        """Delete entries that are older than `keep`."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["prune_audit_entries"], keep.total_seconds())


def _token_fields(row: asyncpg.Record) -> dict[str, Any]:
    """Return the fields of a TokenView."""
    facts = {name: value for name, value in row.items() if name != "digest"}
    facts["id"] = str(row["id"])
    facts["role"] = Role(row["role"])
    facts["datasets"] = tuple(row["datasets"])
    facts["grants"] = tuple(row["grants"])
    facts["state"] = _token_state(row)
    return facts


def _token_state(row: asyncpg.Record) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    expires_at: datetime | None = row["expires_at"]
    return "expired" if expires_at and expires_at <= datetime.now(expires_at.tzinfo) else "live"


def _token_of(row: asyncpg.Record) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]),
        digest=row["digest"],
        datasets=tuple(row["datasets"]),
        expires_at=row["expires_at"],
        grants=known_grants(row["grants"]),
    )


def _session_of(row: asyncpg.Record) -> Session:
    return Session(
        id=row["id"],
        name=row["name"],
        token=row["token"],
        owner=row["owner"],
        digest=row["digest"],
        expires_at=row["expires_at"],
        role=None if row["role"] is None else Role(row["role"]),
        grants=known_grants(row["grants"]),
    )


def _view_of(row: asyncpg.Record) -> SessionView:
    return SessionView(
        id=str(row["id"]),
        name=row["name"],
        token=None if row["token"] is None else str(row["token"]),
        agent=row["agent"],
        remote=row["remote"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
        ended_at=row["ended_at"],
    )


def audit_row(entry: AuditEntry) -> tuple[Any, ...]:
    """Return the columns of an entry, as `record_audit_entry` takes them."""
    facts = (entry.principal, entry.token, entry.remote, entry.action, _shortened(entry.object))
    return *facts, entry.status, entry.times


def _shortened(text: str | None, most: int = _MAX_OBJECT_CHARACTERS) -> str | None:
    return None if text is None else printable(text)[:most]
