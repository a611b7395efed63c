"""Commands about who may ask a daemon.

They ask the daemon, and where none runs its database: the first token of a server that must not
start without one is made so.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Protocol

from cyclopts import Parameter

from pubsubflow.cli import output
from pubsubflow.cli.offline_database import opened
from pubsubflow.cli.parsers import span
from pubsubflow.cli.target import Asking
from pubsubflow.config import load_config
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.model.api.auth import NewToken, TokenView
from pubsubflow.model.auth import Role
from pubsubflow.store.auth import AuditLog, Deed, Tokens
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import migrate

_DEFAULT = Asking()
_LOCAL = "local"
_PAGE = 1000
_DONE = 200

Patterns = Annotated[list[str] | None, Parameter(consume_multiple=True)]


class _Tokens(Protocol):
    """A daemon that is asked, or the database of one that does not run."""

    def tokens(self, *, limit: int | None = None) -> AsyncIterator[TokenView]: ...

    async def create_token(
        self,
        name: str,
        role: Role,
        *,
        datasets: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> NewToken: ...

    async def revoke_token(self, name: str) -> TokenView: ...


async def create_token(
    name: str,
    /,
    *,
    role: Role,
    datasets: Patterns = None,
    expires: str | None = None,
    postgres_url: str | None = None,
    asking: Asking = _DEFAULT,
) -> None:
    """Make a token and print it, once: nobody can show it again.

    Args:
        name: What it is called; unique among tokens that are not revoked.
        role: viewer sees, emitter posts events of some datasets, operator also starts and
            cancels, admin also makes tokens.
        datasets: For an emitter: the datasets whose events it may post, or patterns of them.
        expires: When it expires, such as 90d; never if left out.
        postgres_url: The database of a server that does not run, in place of asking a daemon.
        asking: Which daemon to ask, and the form of the answer.
    """
    ends = None if expires is None else datetime.now(UTC) + span(expires)
    async with _found(asking, postgres_url, make=True) as tokens:
        made = await tokens.create_token(name, role, datasets=datasets or (), expires_at=ends)
    if asking.json:
        output.show_json(made)
        return
    until = "never expires" if ends is None else f"expires {output.moment(ends)}"
    output.warn(f"token {made.name} of role {made.role}, {until}; it cannot be shown again:")
    output.show(made.token)


async def list_tokens(
    *,
    limit: int | None = None,
    postgres_url: str | None = None,
    asking: Asking = _DEFAULT,
) -> None:
    """List tokens, the newest first, also those that count no more.

    Args:
        limit: How many at most; all if left out.
        postgres_url: The database of a server that does not run, in place of asking a daemon.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with _found(asking, postgres_url) as tokens:
        found = tokens.tokens(limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("token", "role", "state", "used", "expires", "datasets", "created", "by", "id"),
            narrow=6,
            elastic=["datasets"],
        )
        async for token in found:
            listing.row(
                token.name,
                token.role,
                token.state,
                output.brief(token.used_at),
                output.brief(token.expires_at),
                " ".join(token.datasets),
                output.brief(token.created_at),
                token.created_by,
                token.id,
            )
    listing.show(none="no tokens: whoever reaches the daemon on this machine may do everything")


async def revoke_token(
    name: str,
    /,
    *,
    postgres_url: str | None = None,
    asking: Asking = _DEFAULT,
) -> None:
    """Let a token count no more, at once.

    Args:
        name: Its name or id.
        postgres_url: The database of a server that does not run, in place of asking a daemon.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with _found(asking, postgres_url) as tokens:
        gone = await tokens.revoke_token(name)
    if asking.json:
        output.show_json(gone)
        return
    output.show(f"token {gone.name} is revoked")


@asynccontextmanager
async def _found(
    asking: Asking, postgres_url: str | None, *, make: bool = False
) -> AsyncIterator[_Tokens]:
    """Give the daemon, if one runs and no database is named, or else the database."""
    if postgres_url is None and asking.finds():
        async with asking.client() as client:
            yield client
        return
    config = load_config(
        file=asking.config,
        environ=os.environ,
        flags={"home": asking.home, "postgres.url": postgres_url},
        defaults={"log": {"level": "warning"}},
    )
    set_up_logging(config.log)
    async with opened(config, make=make) as database:
        await migrate(database)
        yield _Stored(database)


class _Stored:
    """The tokens of a database."""

    def __init__(self, database: Database) -> None:
        self._tokens = Tokens(database)
        self._audit = AuditLog(database)

    async def tokens(self, *, limit: int | None = None) -> AsyncIterator[TokenView]:
        page = await self._tokens.page(limit=_PAGE if limit is None else limit)
        for token in page.items:
            yield token

    async def create_token(
        self,
        name: str,
        role: Role,
        *,
        datasets: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> NewToken:
        number = await self._audit.record(_deed("create", name))
        made = await self._tokens.create(
            name, role, datasets=datasets, expires_at=expires_at, by=_LOCAL
        )
        await self._audit.settle(number, _DONE)
        return made

    async def revoke_token(self, name: str) -> TokenView:
        number = await self._audit.record(_deed("revoke", name))
        gone = await self._tokens.revoke(name)
        await self._audit.settle(number, _DONE, gone.name)
        return gone


def _deed(what: str, name: str) -> Deed:
    return Deed(asker=_LOCAL, action=f"pubsubflow tokens {what}", object=name)
