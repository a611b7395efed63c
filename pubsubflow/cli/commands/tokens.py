"""Tokens: created, listed and revoked by a daemon, or in the database of one that does not run.

A daemon that listens beyond loopback does not start without a token, so its first one is created in
the database.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Protocol

from pubsubflow.cli import output
from pubsubflow.cli.event_loop import on_event_loop
from pubsubflow.cli.offline_database import open_offline_database
from pubsubflow.cli.parsers import Limit, span
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.config import load_config
from pubsubflow.errors import ConfigError
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.model.api.auth import NewToken, TokenView
from pubsubflow.model.auth import Grant, Role
from pubsubflow.model.wire.audit_entries import AuditEntry
from pubsubflow.store.auth import AuditLog, TokenStore
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import migrate

_LOCAL = "local"
_PAGE = 1000
_DONE = 200

Patterns = Annotated[list[str] | None, Parameter(consume_multiple=True)]


class _Tokens(Protocol):
    """The tokens of a running daemon, or of a database."""

    def tokens(self, *, limit: int | None = None) -> AsyncIterator[TokenView]: ...

    async def create_token(
        self,
        name: str,
        role: Role,
        *,
        datasets: Sequence[str] = (),
        grants: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> NewToken: ...

    async def revoke_token(self, name: str) -> TokenView: ...


@on_event_loop
async def create_token(
    name: str,
    /,
    *,
    role: Role | None = None,
    grant: Annotated[list[str] | None, Parameter(negative=())] = None,
    datasets: Patterns = None,
    expires: str | None = None,
    postgres_url: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Create a token and print it; it cannot be shown again.

    Args:
        name: Name of the token; unique among tokens that are not revoked.
        role: Role of the token on everything: viewer reads, emitter posts events of some datasets,
            operator also starts and cancels runs, admin also manages tokens. May be left out with
            --grant.
        grant: A role on some DAGs or datasets: ROLE:dag=PATTERN, ROLE:tag=PATTERN or
            ROLE:dataset=PATTERN, for example operator:dag=sales_*; may be repeated.
        datasets: Datasets, or patterns of them, whose events an emitter may post.
        expires: Lifetime, such as 90d; unlimited if left out.
        postgres_url: URL of the database of a daemon that does not run.
        target: The daemon, and the format of the output.
    """
    if role is None and not grant:
        raise ConfigError("set --role, or --grant for a role on some DAGs or datasets alone")
    grants = [str(Grant.parse(each)) for each in grant or ()]
    ends = None if expires is None else datetime.now(UTC) + span(expires)
    async with _open_tokens(target, postgres_url, make=True) as tokens:
        made = await tokens.create_token(
            name, role or Role.EMITTER, datasets=datasets or (), grants=grants, expires_at=ends
        )
    if target.json:
        output.show_json(made)
        return
    until = "never expires" if ends is None else f"expires {output.moment(ends)}"
    rights = ", ".join([*([f"role {made.role}"] if role else []), *made.grants])
    output.warn(f"token {made.name} of {rights}, {until}; it cannot be shown again:")
    output.show(made.token)


@on_event_loop
async def list_tokens(
    *,
    limit: Limit | None = None,
    postgres_url: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """List tokens, the newest first, also revoked and expired ones.

    Args:
        limit: How many tokens at most; all if left out.
        postgres_url: URL of the database of a daemon that does not run.
        target: The daemon, and the format of the output.
    """
    async with _open_tokens(target, postgres_url) as tokens:
        found = tokens.tokens(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *(
                "token",
                "role",
                "state",
                "used",
                "expires",
                "grants",
                "datasets",
                "created",
                "by",
                "id",
            ),
            narrow=6,
            elastic=["grants", "datasets"],
            times=["used"],
        )
        async for token in found:
            listing.row(
                token.name,
                token.role,
                token.state,
                output.brief(token.used_at),
                output.brief(token.expires_at),
                " ".join(token.grants),
                " ".join(token.datasets),
                output.brief(token.created_at),
                token.created_by,
                token.id,
            )
    listing.show(none="no tokens: any program on this machine has full access to the daemon")


@on_event_loop
async def revoke_token(
    name: str,
    /,
    *,
    postgres_url: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Revoke a token, with immediate effect.

    Args:
        name: Name or id of the token.
        postgres_url: URL of the database of a daemon that does not run.
        target: The daemon, and the format of the output.
    """
    async with _open_tokens(target, postgres_url) as tokens:
        revoked = await tokens.revoke_token(name)
    output.show_result(revoked, f"token {revoked.name} is revoked", json=target.json)


@asynccontextmanager
async def _open_tokens(
    target: Target, postgres_url: str | None, *, make: bool = False
) -> AsyncIterator[_Tokens]:
    """Yield the running daemon's tokens, or those of the database if one is named or none runs."""
    if postgres_url is None and target.is_reachable():
        async with target.client() as client:
            yield client
        return
    config = load_config(
        file=target.config,
        environ=os.environ,
        flags={"home": target.home, "postgres.url": postgres_url},
        defaults={"log": {"level": "warning"}},
    )
    set_up_logging(config.log)
    async with open_offline_database(config, make=make) as database:
        # The first token is created before the first start of the daemon that migrates the tables.
        await migrate(database)
        yield _DatabaseTokens(database)


class _DatabaseTokens:
    """The tokens of a database, with changes recorded in its audit log."""

    def __init__(self, database: Database) -> None:
        self._tokens = TokenStore(database)
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
        grants: Sequence[str] = (),
        expires_at: datetime | None = None,
    ) -> NewToken:
        # The entry comes first: after a crash in between it stands without a status, whereas a
        # change without an entry could never be found.
        number = await self._audit.record(_audit_entry("create", name))
        made = await self._tokens.create(
            name,
            role,
            datasets=datasets,
            grants=[Grant.parse(each) for each in grants],
            expires_at=expires_at,
            by=_LOCAL,
        )
        await self._audit.finish(number, _DONE)
        return made

    async def revoke_token(self, name: str) -> TokenView:
        number = await self._audit.record(_audit_entry("revoke", name))
        revoked = await self._tokens.revoke(name)
        await self._audit.finish(number, _DONE, revoked.name)
        return revoked


def _audit_entry(what: str, name: str) -> AuditEntry:
    return AuditEntry(principal=_LOCAL, action=f"pubsubflow tokens {what}", object=name)
