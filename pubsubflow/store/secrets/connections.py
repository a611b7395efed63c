"""Connections in Postgres, their secrets encrypted with the keys of a file.

Everything that writes rows or the key file holds the lock of the vault and reads both after it has
it, so no row is ever encrypted with a key that is about to go.
"""

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.model.api.connections import ConnectionView, RotatedKeys
from pubsubflow.model.connections import MASK, Connection
from pubsubflow.model.revisions import Revisions, check_revision, connection_revision
from pubsubflow.store.database import Connection as Postgres
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.encryption import Plain, Sealed, SecretsLocked, seal, unseal
from pubsubflow.store.secrets.keyring import Key, KeyFile, new_key, writing_key

log = structlog.get_logger(__name__)


class Saved(Struct, frozen=True):
    """A connection that was set; `created` if there was none by that name."""

    view: ConnectionView
    created: bool


class Connections:
    """The stored connections.

    Args:
        database: Postgres.
        keys: The key file; made when it is first needed.
    """

    def __init__(self, database: Database, keys: KeyFile) -> None:
        self._database = database
        self._keys = keys

    async def list(self, after: str, limit: int) -> list[ConnectionView]:
        """Return connections by name, without their secrets.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as postgres:
            rows = await postgres.fetch(SQL["list_connections"], after, limit)
        return [_view(row) for row in rows]

    async def view(self, name: str) -> ConnectionView:
        """Return a connection without its secrets.

        Raises:
            NotFound: There is none by that name.
        """
        async with self._database.connection() as postgres:
            return _view(await _row(postgres, name))

    async def read(self, name: str) -> Connection:
        """Return a connection with its secrets.

        Raises:
            NotFound: There is none by that name.
            ConfigError: The key file cannot be used, or lacks the key (SecretsLocked).
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as postgres:
            row = await _row(postgres, name)
        keys = await self._keys.read() if row["sealed"] is not None else ()
        return self._opened(row, keys)

    async def save(self, wanted: Connection, revisions: Revisions = None) -> Saved:
        """Set a connection in place of the one that has its name.

        Args:
            wanted: The connection; a secret `***` stands for the one that is stored.
            revisions: Those in whose place; see `connection_revision`.

        Raises:
            StaleRevision: It has another one.
            InvalidInput: There is no such secret to keep.
            ConfigError: The key file cannot be used, or lacks a key (SecretsLocked).
        """
        async with self._database.transaction() as postgres:
            vault = await postgres.fetchval(SQL["lock_connections"])
            row = await postgres.fetchrow(SQL["read_connection"], wanted.name)
            _check(wanted.name, row, revisions)
            keys = await self._keys.read()
            secrets = self._kept(wanted, row, keys)
            plain = _plain(wanted)
            sealed = None
            if secrets:
                await self._check_keys(postgres, keys, wanted.name)
                sealed = seal(secrets, plain, await self._writing_key(keys, vault))
            written = await postgres.fetchrow(
                SQL["save_connection"], *msgspec.structs.astuple(plain), sorted(secrets),
                sealed and sealed.key, sealed and sealed.data,
            )  # fmt: skip
        if written is None:
            raise RuntimeError("an upsert returned no row")
        made = msgspec.structs.replace(wanted, secrets=secrets)
        view = ConnectionView.of(made, written["version"], written["updated_at"])
        return Saved(view, created=row is None)

    async def delete(self, name: str, revisions: Revisions = None) -> None:
        """Forget a connection.

        Raises:
            NotFound: There is none by that name.
            StaleRevision: It has another revision.
        """
        async with self._database.transaction() as postgres:
            await postgres.execute(SQL["lock_connections"])
            row = await _row(postgres, name)
            _check(name, row, revisions)
            await postgres.execute(SQL["delete_connection"], name)

    async def rotate(self) -> RotatedKeys:
        """Encrypt all secrets with a new key; the keys before go when nothing needs them.

        It may be broken off anywhere: until the rows are committed the file has both keys, and what
        an unfinished one leaves behind goes with the next.

        Raises:
            ConfigError: The key file cannot be used, or lacks a key (SecretsLocked); nothing is
                changed then.
        """
        async with self._database.transaction() as postgres:
            vault = await postgres.fetchval(SQL["lock_connections"])
            key = new_key(vault)
            keys = await self._keys.read()
            rows = await postgres.fetch(SQL["read_sealed_connections"])
            found = [(_plain_of(row), self._opened(row, keys)) for row in rows]
            used = {row["key"] for row in rows}
            kept = (each for each in keys if each.id in used or each.vault != vault)
            await self._keys.write((key, *kept))
            sealed = [seal(each.secrets, plain, key) for plain, each in found]
            await postgres.execute(
                SQL["reseal_connections"],
                [plain.name for plain, _ in found],
                [each.key for each in sealed],
                [each.data for each in sealed],
            )
        await self._drop_keys()
        log.info("connections.rotated", connections=len(rows), key=key.id)
        return RotatedKeys(connections=len(rows), key=key.id)

    async def _drop_keys(self) -> None:
        """Drop our keys that nothing is encrypted with, but for the one that encrypts."""
        async with self._database.transaction() as postgres:
            vault = await postgres.fetchval(SQL["lock_connections"])
            used = {row["key"] for row in await postgres.fetch(SQL["find_used_keys"], "")}
            keys = await self._keys.read()
            writing = writing_key(keys, vault)
            needed = tuple(
                key for key in keys if key.id in used or key.vault != vault or key is writing
            )
            if needed != keys:
                await self._keys.write(needed)

    async def _check_keys(self, postgres: Postgres, keys: tuple[Key, ...], name: str) -> None:
        """Check that the file is the right one: no daemon may go on with a key of its own."""
        known = {key.id for key in keys}
        for row in await postgres.fetch(SQL["find_used_keys"], name):
            if row["key"] not in known:
                raise SecretsLocked(
                    f"connection {row['name']!r} is encrypted with key {row['key']}, which is not "
                    f"in key file {self._keys.path}: bring that key back as a further line, or "
                    f"delete that connection, before {name!r} is set"
                )

    async def _writing_key(self, keys: tuple[Key, ...], vault: str) -> Key:
        """Return the key that encrypts; the first one is made here."""
        key = writing_key(keys, vault)
        if key is None:
            key = new_key(vault)
            await self._keys.write((key, *keys))
            log.info("connections.key_made", file=str(self._keys.path), key=key.id)
        return key

    def _kept(
        self, wanted: Connection, row: asyncpg.Record | None, keys: tuple[Key, ...]
    ) -> dict[str, str]:
        """Return the secrets, with the stored ones where a mask stands for them."""
        masked = [field for field, value in wanted.secrets.items() if value == MASK]
        if not masked:
            return wanted.secrets
        before = {} if row is None else self._opened(row, keys).secrets
        for field in masked:
            if field not in before:
                raise InvalidInput(
                    f"connection {wanted.name!r} has no secret {field!r} that {MASK} could stand "
                    "for: give its value"
                )
        return wanted.secrets | {field: before[field] for field in masked}

    def _opened(self, row: asyncpg.Record, keys: tuple[Key, ...]) -> Connection:
        plain, secrets = _plain_of(row), {}
        if row["sealed"] is not None:
            sealed = Sealed(row["key"], row["sealed"])
            secrets = unseal(sealed, plain, keys, where=str(self._keys.path))
        extra = msgspec.json.decode(plain.extra)
        return Connection(
            name=plain.name, kind=plain.kind, uri=plain.uri, extra=extra, secrets=secrets
        )


async def _row(postgres: Postgres, name: str) -> asyncpg.Record:
    row = await postgres.fetchrow(SQL["read_connection"], name)
    if row is None:
        raise NotFound("connection", name)
    return row


def _check(name: str, row: asyncpg.Record | None, revisions: Revisions) -> None:
    revision = connection_revision(None if row is None else row["version"])
    check_revision(f"connection {name!r}", revision, revisions)


def _plain(connection: Connection) -> Plain:
    extra = msgspec.json.encode(connection.extra).decode()
    return Plain(connection.name, connection.kind, connection.uri, extra)


def _plain_of(row: asyncpg.Record) -> Plain:
    return Plain(row["name"], row["kind"], row["uri"], row["extra"])


def _view(row: asyncpg.Record) -> ConnectionView:
    shown = Connection(
        name=row["name"],
        kind=row["kind"],
        uri=row["uri"],
        extra=msgspec.json.decode(row["extra"]),
        secrets=dict.fromkeys(row["secret_fields"], MASK),
    )
    return ConnectionView.of(shown, row["version"], row["updated_at"])
