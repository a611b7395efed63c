"""Variables in Postgres; the values of secret ones are encrypted as connections' secrets are."""

from collections.abc import Mapping, Sequence
from os import environ
from typing import Any, Protocol

import asyncpg
import msgspec
from msgspec import Struct

from pubsubflow.errors import ConfigError, InvalidInput, NotFound, SecretsUnavailable
from pubsubflow.model.api.variables import VariableView
from pubsubflow.model.revisions import Revisions, check_revision, connection_revision
from pubsubflow.model.values.variables import (
    ENVIRONMENT,
    Variable,
    environment_name,
    make_variable,
    parse_value,
)
from pubsubflow.redaction import MASK
from pubsubflow.store.database import Connection as Postgres
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.encryption import AssociatedData, Ciphertext, decrypt, encrypt
from pubsubflow.store.secrets.keyring import EncryptionKey, Keyring
from pubsubflow.store.secrets.vault import encryption_key, lock_vault

_FIELD = "value"


class SavedVariable(Struct, frozen=True):
    """A variable that was saved; `created` if its name is new."""

    view: VariableView
    created: bool


class VariableSource(Protocol):
    """Variables from outside of the store."""

    async def variable(self, name: str) -> Variable | None:
        """Return a variable; None if it is not there.

        Raises:
            ConfigError: It refuses this daemon, or what it holds is not a variable.
            SecretsUnavailable: It is away.
        """


class Variables:
    """The stored variables; those of the environment and of secrets backends come first.

    Args:
        database: Postgres.
        keys: The keyring.
        environment: Where `PUBSUBFLOW_VAR_NAME` is looked up; this process's if left out.
        backends: Secrets backends, which come after that and before the store.
    """

    def __init__(
        self,
        database: Database,
        keys: Keyring,
        environment: Mapping[str, str] | None = None,
        backends: VariableSource | None = None,
    ) -> None:
        self._backends = backends
        self._database = database
        self._keys = keys
        self._environment = environ if environment is None else environment

    async def list(self, after: str, limit: int) -> list[VariableView]:
        """Return variables by name, with masks for secret values."""
        async with self._database.connection() as postgres:
            rows = await postgres.fetch(SQL["list_variables"], after, limit)
        stored = {row["name"]: _view(row) for row in rows}
        last = rows[-1]["name"] if len(rows) == limit else None
        stored |= {
            name: view
            for name, view in self._from_environment().items()
            if name > after and (last is None or name <= last)
        }
        stored = {name: self._present(view) for name, view in stored.items()}
        return [stored[name] for name in sorted(stored)][:limit]

    async def view(self, name: str) -> VariableView:
        """Return a variable, with a mask for a secret value.

        Raises:
            NotFound: No variable has this name.
        """
        found = self._environment_variable(name)
        if found is not None:
            return VariableView.of(found, source="environment")
        async with self._database.connection() as postgres:
            return _view(await _row(postgres, name))

    async def read(self, name: str) -> Variable:
        """Return a variable with its value.

        Raises:
            NotFound: No variable has this name.
            ConfigError: The key file cannot be used, or lacks the key; or a secrets backend refuses
                this daemon.
            SecretsUnavailable: A secrets backend is away.
            StoreUnavailable: Postgres is away.
        """
        found = self._environment_variable(name)
        if found is None and self._backends is not None:
            found = await self._backends.variable(name)
        if found is not None:
            return found
        async with self._database.connection() as postgres:
            row = await _row(postgres, name)
        keys = await self._keys.read() if row["ciphertext"] is not None else ()
        return self._decrypted(row, keys)

    async def read_plain(self, names: Sequence[str]) -> dict[str, Variable]:
        """Return those of some variables that exist; of secret ones without the value.

        Raises:
            SecretsUnavailable: A secrets backend is away, or refuses this daemon.
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as postgres:
            rows = await postgres.fetch(SQL["read_variables"], list(names))
        found = {row["name"]: _masked(row) for row in rows}
        for name in names:
            given = self._environment_variable(name)
            if given is None and self._backends is not None:
                given = await self._backend_variable(name, self._backends)
            if given is not None:
                found[name] = given
        return found

    async def _backend_variable(self, name: str, backends: VariableSource) -> Variable | None:
        """Return a variable of the backends, of a secret one without the value."""
        try:
            given = await backends.variable(name)
        except ConfigError as error:
            # Worth a retry, as one that is away: the files that use it wait for it.
            raise SecretsUnavailable(str(error)) from error
        if given is None or not given.secret:
            return given
        return msgspec.structs.replace(given, value=MASK)

    async def save(self, wanted: Variable, revisions: Revisions = None) -> SavedVariable:
        """Save a variable, in place of the one with its name.

        Args:
            wanted: The variable; the value `***` of a secret one keeps the stored value.
            revisions: The revisions that it may replace; see `connection_revision`.

        Raises:
            StaleRevision: The stored variable has another revision.
            InvalidInput: A value to keep does not exist.
            ConfigError: The key file cannot be used, or lacks a key.
        """
        async with self._database.transaction() as postgres:
            vault = await lock_vault(postgres)
            row = await postgres.fetchrow(SQL["read_variable"], wanted.name)
            _check(wanted.name, row, revisions)
            ciphertext, text = None, _json(wanted.value)
            if wanted.secret:
                keys = await self._keys.read()
                if wanted.value == MASK:
                    text = _json(self._kept(wanted.name, row, keys))
                what = f"variable {wanted.name}"
                key = await encryption_key(postgres, self._keys, keys, vault, what)
                ciphertext = encrypt({_FIELD: text}, _associated(wanted.name), key)
            written = await postgres.fetchrow(
                SQL["save_variable"],
                wanted.name,
                None if wanted.secret else text,
                wanted.secret,
                wanted.description,
                ciphertext and ciphertext.key_id,
                ciphertext and ciphertext.data,
            )
        if written is None:
            raise RuntimeError("an upsert returned no row")
        view = VariableView.of(wanted, written["version"], written["updated_at"])
        return SavedVariable(self._present(view), created=row is None)

    async def delete(self, name: str, revisions: Revisions = None) -> None:
        """Delete a variable.

        Raises:
            NotFound: No stored variable has this name.
            StaleRevision: It has another revision.
        """
        async with self._database.transaction() as postgres:
            await lock_vault(postgres)
            row = await _row(postgres, name)
            _check(name, row, revisions)
            await postgres.execute(SQL["delete_variable"], name)

    def _kept(
        self, name: str, row: asyncpg.Record | None, keys: tuple[EncryptionKey, ...]
    ) -> object:
        if row is None:
            raise InvalidInput(
                f"variable {name!r} has no value that {MASK} could stand for: give its value"
            )
        return self._decrypted(row, keys).value

    def _decrypted(self, row: asyncpg.Record, keys: tuple[EncryptionKey, ...]) -> Variable:
        text = row["value"]
        if row["ciphertext"] is not None:
            text = _decrypt(row, keys, str(self._keys.path))
        return Variable(
            name=row["name"],
            value=msgspec.json.decode(text),
            secret=row["secret"],
            description=row["description"],
        )

    def _environment_variable(self, name: str) -> Variable | None:
        text = self._environment.get(environment_name(ENVIRONMENT, name))
        return None if text is None else make_variable(name, parse_value(text))

    def _from_environment(self) -> dict[str, VariableView]:
        """Return the variables that only the environment may have, by the plainest name."""
        found = {}
        for name, text in self._environment.items():
            if name.startswith(ENVIRONMENT) and len(name) > len(ENVIRONMENT):
                plain = name.removeprefix(ENVIRONMENT).lower()
                variable = make_variable(plain, parse_value(text))
                found[plain] = VariableView.of(variable, source="environment")
        return found

    def _present(self, view: VariableView) -> VariableView:
        """Return what counts under a name: the environment's, where it has one."""
        found = self._environment_variable(view.name)
        return view if found is None else VariableView.of(found, source="environment")


async def reencrypt_variables(
    postgres: Postgres, keys: tuple[EncryptionKey, ...], key: EncryptionKey, where: str
) -> int:
    """Encrypt the secret variables with another key, and return how many there are.

    Args:
        postgres: A transaction that has locked the vault.
        keys: All keys of the keyring.
        key: The new one.
        where: The keyring's path, for errors.
    """
    rows = await postgres.fetch(SQL["list_encrypted_variables"])
    encrypted = [
        encrypt({_FIELD: _decrypt(row, keys, where)}, _associated(row["name"]), key) for row in rows
    ]
    await postgres.execute(
        SQL["reencrypt_variables"],
        [row["name"] for row in rows],
        [each.key_id for each in encrypted],
        [each.data for each in encrypted],
    )
    return len(rows)


def _decrypt(row: asyncpg.Record, keys: tuple[EncryptionKey, ...], where: str) -> str:
    ciphertext = Ciphertext(row["key_id"], row["ciphertext"])
    return decrypt(ciphertext, _associated(row["name"]), keys, where=where)[_FIELD]


def _associated(name: str) -> AssociatedData:
    # No connection's name has a space: a ciphertext of one cannot be moved to the other.
    return AssociatedData(f"variable {name}", "variable", None, "{}")


async def _row(postgres: Postgres, name: str) -> asyncpg.Record:
    row = await postgres.fetchrow(SQL["read_variable"], name)
    if row is None:
        raise NotFound("variable", name)
    return row


def _check(name: str, row: asyncpg.Record | None, revisions: Revisions) -> None:
    revision = connection_revision(None if row is None else row["version"])
    check_revision(f"variable {name!r}", revision, revisions)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _masked(row: asyncpg.Record) -> Variable:
    value = MASK if row["secret"] else msgspec.json.decode(row["value"])
    return Variable(
        name=row["name"], value=value, secret=row["secret"], description=row["description"]
    )


def _view(row: asyncpg.Record) -> VariableView:
    return VariableView.of(_masked(row), row["version"], row["updated_at"])
