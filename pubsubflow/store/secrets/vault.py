"""The vault: the keys in use by connections and variables, under one lock for all who write."""

import structlog

from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.secrets.encryption import DecryptionError
from pubsubflow.store.secrets.keyring import EncryptionKey, Keyring, new_key, primary_key

log = structlog.get_logger(__name__)


async def lock_vault(postgres: Connection) -> str:
    """Lock the vault until the transaction ends, and return its id.

    Whatever writes encrypted rows or the keyring locks it first and reads both after that, so no
    row is ever encrypted with a key that is about to be dropped.
    """
    vault: str = await postgres.fetchval(SQL["lock_connections"])
    return vault


async def used_keys(postgres: Connection) -> set[str]:
    """Return the ids of the keys that something is encrypted with, under the vault's lock."""
    return {row["key_id"] for row in await postgres.fetch(SQL["list_used_keys"], "")}


async def encryption_key(
    postgres: Connection, keyring: Keyring, keys: tuple[EncryptionKey, ...], vault: str, what: str
) -> EncryptionKey:
    """Return the key that encrypts, made if the vault has none.

    Args:
        postgres: A transaction that has locked the vault.
        keyring: The keyring.
        keys: Its keys.
        vault: Its id.
        what: What is about to be written, such as `connection crm`.

    Raises:
        DecryptionError: The keyring lacks a key in use: with another one nothing must be written.
    """
    known = {key.id for key in keys}
    for row in await postgres.fetch(SQL["list_used_keys"], what):
        if row["key_id"] not in known:
            raise DecryptionError(
                f"{_quoted(row['name'])} is encrypted with key {row['key_id']}, which is not in "
                f"key file {keyring.path}: bring that key back as a further line, or delete that "
                f"{row['name'].partition(' ')[0]}, before {_quoted(what)} is set"
            )
    key = primary_key(keys, vault)
    if key is None:
        key = new_key(vault)
        await keyring.write((key, *keys))
        log.info("keyring.key_created", file=str(keyring.path), key=key.id)
    return key


async def drop_unused_keys(database: Database, keyring: Keyring) -> None:
    """Drop the vault's keys that nothing is encrypted with, except the primary one."""
    async with database.transaction() as postgres:
        vault = await lock_vault(postgres)
        used = await used_keys(postgres)
        keys = await keyring.read()
        primary = primary_key(keys, vault)
        needed = tuple(
            key for key in keys if key.id in used or key.vault != vault or key is primary
        )
        if needed != keys:
            await keyring.write(needed)


def _quoted(what: str) -> str:
    kind, _, name = what.partition(" ")
    return f"{kind} {name!r}"
