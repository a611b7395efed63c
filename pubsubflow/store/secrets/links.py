"""Signed links: a payload that only a daemon with the keyring could have made."""

import base64
import binascii
import hmac
from hashlib import sha256

from pubsubflow.store.database import Database
from pubsubflow.store.secrets.keyring import EncryptionKey, Keyring
from pubsubflow.store.secrets.vault import encryption_key, lock_vault

_PURPOSE = b"pubsubflow signed link 1"
_MAC_BYTES = 32
_MAX_CHARACTERS = 2048


class SignedLinks:
    """Signs and verifies payloads by keys that are derived from those of the keyring.

    A rotation of the keys voids the links of before.

    Args:
        database: Postgres, whose vault has the keys.
        keyring: The keys.
    """

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    async def sign(self, payload: bytes) -> str:
        """Return a payload with its signature, in characters of a URL.

        Raises:
            DecryptionError: The keyring lacks a key in use.
            ConfigError: The keyring cannot be read or written.
        """
        async with self._database.transaction() as postgres:
            vault = await lock_vault(postgres)
            keys = await self._keyring.read()
            key = await encryption_key(postgres, self._keyring, keys, vault, "link approval")
        signed = payload + _mac(key, payload)
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    async def verify(self, link: str) -> bytes | None:
        """Return the payload of a link; None if it was not signed here.

        Raises:
            ConfigError: The keyring cannot be read.
        """
        if len(link) > _MAX_CHARACTERS or not link.isascii():
            return None
        try:
            signed = base64.urlsafe_b64decode(link + "=" * (-len(link) % 4))
        except (binascii.Error, ValueError):
            return None
        payload, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
        keys = await self._keyring.read()
        # All are compared: which one fits must not show in the time.
        fits = [hmac.compare_digest(_mac(key, payload), mac) for key in keys]
        return payload if any(fits) else None


def _mac(key: EncryptionKey, payload: bytes) -> bytes:
    own = hmac.digest(key.data, _PURPOSE, sha256)
    return hmac.digest(own, payload, sha256)
