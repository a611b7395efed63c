"""Encryption of secrets, bound to their row: AES-256-GCM (NIST SP 800-38D), docs/adr/0010."""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from pubsubflow.errors import ConfigError
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.store.secrets.keyring import EncryptionKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# Imported for the first secret: no start waits for a library of 10 MB.
exceptions = lazy_module("cryptography.exceptions")
_AEAD = "cryptography.hazmat.primitives.ciphers.aead"
_NONCE_BYTES = 12
_PURPOSE = b"pubsubflow connection 1"
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(dict[str, str]).decode


class DecryptionError(ConfigError):
    """The secrets of a connection cannot be decrypted; the message has its name and the remedy."""


class AssociatedData(Struct, frozen=True, array_like=True):
    """The plain columns of a row, which its secrets are bound to.

    If they are changed without the key, the secrets cannot be decrypted any more. So write access
    to the database alone is not enough to have a password sent to another host, or given to another
    DAG.
    """

    name: str
    kind: str
    uri: str | None
    extra: str
    dags: tuple[str, ...] = ()

    def encoded(self) -> bytes:
        """Return what the secrets are bound to; without `dags` as it was before there were any."""
        fields = (self.name, self.kind, self.uri, self.extra)
        return _PURPOSE + _encode((*fields, self.dags) if self.dags else fields)


class Ciphertext(Struct, frozen=True):
    """Encrypted secrets.

    Attributes:
        key_id: Id of the key.
        data: Nonce and ciphertext.
    """

    key_id: str
    data: bytes


def encrypt(
    secrets: Mapping[str, str], associated: AssociatedData, key: EncryptionKey
) -> Ciphertext:
    """Encrypt secrets for a row."""
    nonce = os.urandom(_NONCE_BYTES)
    ciphertext = _cipher(key).encrypt(nonce, _encode(secrets), associated.encoded())
    return Ciphertext(key.id, nonce + ciphertext)


def decrypt(
    ciphertext: Ciphertext, associated: AssociatedData, keys: Sequence[EncryptionKey], *, where: str
) -> dict[str, str]:
    """Decrypt the secrets of a row.

    Args:
        ciphertext: The secrets.
        associated: The plain columns of the row.
        keys: All keys of the keyring.
        where: The keyring's path, for the error.

    Raises:
        DecryptionError: The key is missing, or the row was changed.
    """
    key = next((each for each in keys if each.id == ciphertext.key_id), None)
    if key is None:
        there = f"has only {', '.join(each.id for each in keys)}" if keys else "is not there"
        raise DecryptionError(
            f"{_named(associated)} is encrypted with key {ciphertext.key_id}, and key file {where} "
            f"{there}: bring that key back as a further line, or delete it and set it again"
        )
    nonce, data = ciphertext.data[:_NONCE_BYTES], ciphertext.data[_NONCE_BYTES:]
    try:
        return _decode(_cipher(key).decrypt(nonce, data, associated.encoded()))
    except exceptions.InvalidTag as error:
        raise DecryptionError(
            f"the secrets of {_named(associated)} do not belong to its row, which was changed by "
            "something else than pubsubflow: delete it and set it again"
        ) from error


def _cipher(key: EncryptionKey) -> "AESGCM":
    # Not a lazy module: to find one, its package is imported, and with it all.
    cipher: AESGCM = import_module(_AEAD).AESGCM(key.data)
    return cipher


def _named(associated: AssociatedData) -> str:
    kind, _, name = associated.name.rpartition(" ")
    return f"{kind or 'connection'} {name!r}"
