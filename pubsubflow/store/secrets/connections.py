"""Connections in Postgres, with secrets encrypted by the keys of a keyring.

See `vault` for the order in which rows and the keyring are read and written.
"""

from collections.abc import Mapping
from os import environ
from typing import Protocol

import asyncpg
import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from pubsubflow.errors import ConfigError, InvalidInput, NotFound
from pubsubflow.model.api.connections import (
    ConnectionView,
    ExportedConnection,
    ExportedConnections,
    RotatedKeys,
)
from pubsubflow.model.connection_dags import check_dag, check_no_dag
from pubsubflow.model.connections import ENVIRONMENT, MASK, Connection, read_connection
from pubsubflow.model.revisions import Revisions, check_revision, connection_revision
from pubsubflow.model.values.variables import environment_name
from pubsubflow.store.database import Connection as Postgres
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.encryption import (
    AssociatedData,
    Ciphertext,
    decrypt,
    encrypt,
)
from pubsubflow.store.secrets.keyring import EncryptionKey, Keyring, new_key
from pubsubflow.store.secrets.variables import reencrypt_variables
from pubsubflow.store.secrets.vault import drop_unused_keys, encryption_key, lock_vault, used_keys

log = structlog.get_logger(__name__)


class SavedConnection(Struct, frozen=True):
    """A connection that was saved; `created` if its name is new."""

    view: ConnectionView
    created: bool


class ConnectionSource(Protocol):
    """Connections from outside of the store."""

    async def connection(self, name: str) -> Connection | None:
        """Return a connection; None if it is not there.

        Raises:
            ConfigError: It refuses this daemon, or what it holds is not a connection.
            SecretsUnavailable: It is away.
        """


class Connections:
    """The stored connections.

    Args:
        database: Postgres.
        keys: The keyring; its file is created when it is first needed.
        environment: Where `PUBSUBFLOW_CONN_NAME` is looked up; this process's if left out.
        backends: Secrets backends, which come after that and before the store.
    """

    def __init__(
        self,
        database: Database,
        keys: Keyring,
        environment: Mapping[str, str] | None = None,
        backends: ConnectionSource | None = None,
    ) -> None:
        self._backends = backends
        self._database = database
        self._keys = keys
        self._environment = environ if environment is None else environment

    async def list(self, after: str, limit: int) -> list[ConnectionView]:
        """Return connections by name, without their secrets.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as postgres:
            rows = await postgres.fetch(SQL["list_connections"], after, limit)
        found = {row["name"]: self._present(_view(row)) for row in rows}
        last = rows[-1]["name"] if len(rows) == limit else None
        for variable in self._environment:
            if variable.startswith(ENVIRONMENT):
                name = variable.removeprefix(ENVIRONMENT).lower()
                if name > after and (last is None or name <= last):
                    found |= self._given_view(name)
        return [found[name] for name in sorted(found)][:limit]

    async def view(self, name: str) -> ConnectionView:
        """Return a connection without its secrets.

        Raises:
            NotFound: No connection has this name.
        """
        found = self._given_view(name)
        if found:
            return found[name]
        async with self._database.connection() as postgres:
            return _view(await _row(postgres, name))

    async def read(self, name: str) -> Connection:
        """Return a connection with its secrets: of a secrets backend, else the stored one.

        Raises:
            NotFound: No connection has this name.
            ConfigError: The key file cannot be used, or lacks the key (DecryptionError); or a
                secrets backend refuses this daemon.
            SecretsUnavailable: A secrets backend is away.
            StoreUnavailable: Postgres is away.
        """
        found = self._given(name)
        if found is None and self._backends is not None:
            found = await self._backends.connection(name)
        if found is not None:
            return found
        async with self._database.connection() as postgres:
            row = await _row(postgres, name)
        keys = await self._keys.read() if row["ciphertext"] is not None else ()
        return self._decrypted(row, keys)

    async def export(self) -> ExportedConnections:
        """Return all stored connections with their secrets; those of other sources are left out.

        Raises:
            ConfigError: The key file cannot be used, or lacks a key (DecryptionError).
        """
        async with self._database.connection() as postgres:
            rows = await postgres.fetch(SQL["list_all_connections"])
        keys = await self._keys.read() if any(row["ciphertext"] for row in rows) else ()
        found = (self._decrypted(row, keys) for row in rows)
        return ExportedConnections(
            connections=[
                ExportedConnection(
                    name=each.name,
                    kind=each.kind,
                    uri=each.uri,
                    extra=each.extra,
                    secrets=each.secrets,
                    dags=list(each.dags),
                )
                for each in found
            ]
        )

    async def read_for(self, name: str, dag_id: str | None, user: str = "this") -> Connection:
        """Return a connection with its secrets, for a DAG or for what belongs to none.

        Args:
            name: Its name.
            dag_id: The DAG; None for none.
            user: What wants to use it if it belongs to no DAG, such as `a webhook`.

        Raises:
            ConfigError: The connection is for other DAGs; and what `read` raises.
        """
        found = await self.read(name)
        if dag_id is None:
            check_no_dag(name, found.dags, user)
        else:
            check_dag(name, found.dags, dag_id)
        return found

    async def save(
        self, wanted: Connection, revisions: Revisions = None, *, keep_dags: bool = False
    ) -> SavedConnection:
        """Save a connection, in place of the one with its name.

        Args:
            wanted: The connection; a secret `***` keeps the stored value.
            revisions: The revisions that it may replace; see `connection_revision`.
            keep_dags: It keeps the DAGs that the stored one is for.

        Raises:
            StaleRevision: The stored connection has another revision.
            InvalidInput: A secret to keep does not exist.
            ConfigError: The key file cannot be used, or lacks a key (DecryptionError).
        """
        async with self._database.transaction() as postgres:
            vault = await lock_vault(postgres)
            row = await postgres.fetchrow(SQL["read_connection"], wanted.name)
            _check(wanted.name, row, revisions)
            keys = await self._keys.read()
            if keep_dags and row is not None:
                # By what is sealed: the column alone might be an intruder's.
                wanted = replace(wanted, dags=self._decrypted(row, keys).dags)
            secrets = self._secrets_with_kept(wanted, row, keys)
            associated = _associated_data(wanted)
            ciphertext = None
            if secrets:
                what = f"connection {wanted.name}"
                key = await encryption_key(postgres, self._keys, keys, vault, what)
                ciphertext = encrypt(secrets, associated, key)
            written = await postgres.fetchrow(
                SQL["save_connection"], *msgspec.structs.astuple(associated), sorted(secrets),
                ciphertext and ciphertext.key_id, ciphertext and ciphertext.data,
            )  # fmt: skip
        if written is None:
            raise RuntimeError("an upsert returned no row")
        made = replace(wanted, secrets=secrets)
        view = ConnectionView.of(made, written["version"], written["updated_at"])
        return SavedConnection(view, created=row is None)

    async def delete(self, name: str, revisions: Revisions = None) -> None:
        """Delete a connection.

        Raises:
            NotFound: No connection has this name.
            StaleRevision: It has another revision.
        """
        async with self._database.transaction() as postgres:
            await lock_vault(postgres)
            row = await _row(postgres, name)
            _check(name, row, revisions)
            await postgres.execute(SQL["delete_connection"], name)

    async def rotate(self) -> RotatedKeys:
        """Encrypt all secrets with a new key, and drop the keys that nothing uses any more.

        It may be interrupted anywhere: until the rows are committed the keyring has both keys, and
        the next rotation drops what an interrupted one leaves behind.

        Raises:
            ConfigError: The key file cannot be used, or lacks a key (DecryptionError); nothing is
                changed then.
        """
        async with self._database.transaction() as postgres:
            vault = await lock_vault(postgres)
            key = new_key(vault)
            keys = await self._keys.read()
            rows = await postgres.fetch(SQL["list_encrypted_connections"])
            found = [(_associated_data_of(row), self._decrypted(row, keys)) for row in rows]
            used = await used_keys(postgres)
            kept = (each for each in keys if each.id in used or each.vault != vault)
            # The keyring is written before the rows: the other way round a crash in between would
            # leave rows that no key decrypts.
            await self._keys.write((key, *kept))
            encrypted = [encrypt(each.secrets, associated, key) for associated, each in found]
            await postgres.execute(
                SQL["reencrypt_connections"],
                [associated.name for associated, _ in found],
                [each.key_id for each in encrypted],
                [each.data for each in encrypted],
            )
            variables = await reencrypt_variables(postgres, keys, key, str(self._keys.path))
        await drop_unused_keys(self._database, self._keys)
        log.info("keyring.rotated", connections=len(rows), variables=variables, key=key.id)
        return RotatedKeys(connections=len(rows), variables=variables, key=key.id)

    def _given(self, name: str) -> Connection | None:
        """Return a connection of the environment; it comes before the stored one.

        Raises:
            ConfigError: It cannot be read.
        """
        variable = environment_name(ENVIRONMENT, name)
        text = self._environment.get(variable)
        if text is None:
            return None
        try:
            return read_connection(name, text)
        except InvalidInput as error:
            raise ConfigError(f"environment variable {variable}: {error}") from error

    def _given_view(self, name: str) -> dict[str, ConnectionView]:
        """Return name → view of a connection of the environment that can be read."""
        try:
            found = self._given(name)
        except ConfigError as error:
            log.warning("connections.environment_refused", reason=str(error))
            return {}
        return {} if found is None else {name: ConnectionView.of(found, source="environment")}

    def _present(self, view: ConnectionView) -> ConnectionView:
        """Return what counts under a name: the environment's, where it has one."""
        return self._given_view(view.name).get(view.name, view)

    def _secrets_with_kept(
        self, wanted: Connection, row: asyncpg.Record | None, keys: tuple[EncryptionKey, ...]
    ) -> dict[str, str]:
        """Return the secrets, with the stored value where a mask stands for it."""
        masked = [field for field, value in wanted.secrets.items() if value == MASK]
        if not masked:
            return wanted.secrets
        before = {} if row is None else self._decrypted(row, keys).secrets
        for field in masked:
            if field not in before:
                raise InvalidInput(
                    f"connection {wanted.name!r} has no secret {field!r} that {MASK} could stand "
                    "for: give its value"
                )
        return wanted.secrets | {field: before[field] for field in masked}

    def _decrypted(self, row: asyncpg.Record, keys: tuple[EncryptionKey, ...]) -> Connection:
        associated, secrets = _associated_data_of(row), {}
        if row["ciphertext"] is not None:
            ciphertext = Ciphertext(row["key_id"], row["ciphertext"])
            secrets = decrypt(ciphertext, associated, keys, where=str(self._keys.path))
        return Connection(
            name=associated.name,
            kind=associated.kind,
            uri=associated.uri,
            extra=msgspec.json.decode(associated.extra),
            secrets=secrets,
            dags=associated.dags,
        )


async def _row(postgres: Postgres, name: str) -> asyncpg.Record:
    row = await postgres.fetchrow(SQL["read_connection"], name)
    if row is None:
        raise NotFound("connection", name)
    return row


def _check(name: str, row: asyncpg.Record | None, revisions: Revisions) -> None:
    revision = connection_revision(None if row is None else row["version"])
    check_revision(f"connection {name!r}", revision, revisions)


def _associated_data(connection: Connection) -> AssociatedData:
    extra = msgspec.json.encode(connection.extra).decode()
    return AssociatedData(connection.name, connection.kind, connection.uri, extra, connection.dags)


def _associated_data_of(row: asyncpg.Record) -> AssociatedData:
    return AssociatedData(row["name"], row["kind"], row["uri"], row["extra"], tuple(row["dags"]))


def _view(row: asyncpg.Record) -> ConnectionView:
    shown = Connection(
        name=row["name"],
        kind=row["kind"],
        uri=row["uri"],
        extra=msgspec.json.decode(row["extra"]),
        secrets=dict.fromkeys(row["secret_fields"], MASK),
        dags=tuple(row["dags"]),
    )
    return ConnectionView.of(shown, row["version"], row["updated_at"])
