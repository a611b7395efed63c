"""Tokens, and who did what with them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.auth import AuditView, NewToken, TokenView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.auth import (
    Role,
    Token,
    check_limits,
    check_name,
    digest_of,
    new_secret,
)
from pubsubflow.model.ids import new_id
from pubsubflow.store.database import Database, printable
from pubsubflow.store.named_queries import SQL

_LAST = UUID(int=2**128 - 1)
_NEWEST = 2**63 - 1
_LONGEST = 2000


class NameTaken(InvalidInput):
    """A token of that name is there already."""


class Tokens:
    """All about tokens in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        role: Role,
        *,
        datasets: Sequence[str] = (),
        expires_at: datetime | None = None,
        by: str,
    ) -> NewToken:
        """Make a token; what is returned is the only place where its text ever stands.

        Args:
            name: For people; unique among tokens that are not revoked.
            role: What its holder may do.
            datasets: Patterns or URIs, for an emitter.
            expires_at: When it expires, with a zone; never if None.
            by: Who asks for it.

        Raises:
            InvalidInput: Name, limits or time do not fit.
            NameTaken: A token that is not revoked has the name.
            StoreUnavailable: Postgres is away.
        """
        secret = new_secret()
        facts = (new_id(), check_name(name), role, digest_of(secret), check_limits(role, datasets))
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["create_token"], *facts, by, expires_at)
        if row is None:
            raise NameTaken(f"a token named {name!r} is there already: revoke it, or name another")
        return NewToken(**_facts(row), token=secret)

    async def page(self, *, limit: int, after: UUID | None = None) -> Page[TokenView]:
        """Return tokens, the newest first, also those that count no more.

        Args:
            limit: Number at most.
            after: The last id of the page before.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_tokens"], after or _LAST, limit)
        items = [TokenView(**_facts(row)) for row in rows]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def revoke(self, name: str) -> TokenView:
        """Let a token count no more, by its id or name; once revoked it stays so.

        Raises:
            NotFound: There is none.
        """
        async with self._database.transaction() as connection:
            found = await connection.fetchval(SQL["find_token"], printable(name))
            if found is None:
                raise NotFound("token", name)
            row = await connection.fetchrow(SQL["revoke_token"], found)
        if row is None:
            raise NotFound("token", name)
        return TokenView(**_facts(row))

    async def live(self) -> tuple[bool, Sequence[Token]]:
        """Return whether there ever was a token, and those that count."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_live_tokens"])
            some = bool(rows) or await connection.fetchval(SQL["has_tokens"])
        tokens = [
            Token(
                id=row["id"],
                name=row["name"],
                role=Role(row["role"]),
                digest=row["digest"],
                datasets=tuple(row["datasets"]),
                expires_at=row["expires_at"],
            )
            for row in rows
        ]
        return some, tokens

    async def note_used(self, used: Mapping[UUID, datetime]) -> None:
        """Note when tokens were last shown."""
        async with self._database.connection() as connection:
            ids = sorted(used)
            await connection.execute(SQL["note_tokens_used"], ids, [used[each] for each in ids])


class Deed(Struct, frozen=True, kw_only=True):
    """What somebody does, or was not let do; see the attributes of `AuditView`."""

    asker: str
    action: str
    token: UUID | None = None
    remote: str | None = None
    object: str | None = None
    status: int | None = None
    times: int = 1


class AuditLog:
    """Who did what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, deed: Deed) -> int:
        """Record what somebody does; return its number.

        Raises:
            StoreUnavailable: Postgres is away; so nothing may be done.
        """
        facts = (deed.asker, deed.token, deed.remote, deed.action, _short(deed.object))
        async with self._database.connection() as connection:
            number: int = await connection.fetchval(
                SQL["record_audit"], *facts, deed.status, deed.times
            )
        return number

    async def settle(self, number: int, status: int, about: str | None = None) -> None:
        """Record the status of the answer, and what the deed was about if that is known now."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["settle_audit"], number, status, _short(about))

    async def page(
        self, *, limit: int, after: int | None = None, asker: str | None = None
    ) -> Page[AuditView]:
        """Return what was done, the newest first.

        Args:
            limit: Number at most.
            after: The last id of the page before.
            asker: Only what this one did.
        """
        before = after or _NEWEST
        async with self._database.connection() as connection:
            if asker is None:
                rows = await connection.fetch(SQL["list_audit"], before, limit)
            else:
                name = printable(asker)
                rows = await connection.fetch(SQL["list_audit_of"], before, limit, name)
        items = [
            AuditView(**{**dict(row), "token": None if row["token"] is None else str(row["token"])})
            for row in rows
        ]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def prune(self, keep: timedelta) -> None:
        """Forget what was done longer ago."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["prune_audit"], keep.total_seconds())


def _facts(row: asyncpg.Record) -> dict[str, Any]:
    """Return the fields of a TokenView."""
    facts = {name: value for name, value in row.items() if name != "digest"}
    facts["id"] = str(row["id"])
    facts["role"] = Role(row["role"])
    facts["datasets"] = tuple(row["datasets"])
    facts["state"] = _state(row)
    return facts


def _state(row: asyncpg.Record) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    expires_at: datetime | None = row["expires_at"]
    return "expired" if expires_at and expires_at <= datetime.now(expires_at.tzinfo) else "live"


def _short(text: str | None) -> str | None:
    return None if text is None else printable(text)[:_LONGEST]
