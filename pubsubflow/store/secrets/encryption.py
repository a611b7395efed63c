"""Encrypts secrets for one row and no other: AES-256-GCM (NIST SP 800-38D); see docs/adr/0010."""

import os
from collections.abc import Mapping, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from pubsubflow.errors import ConfigError
from pubsubflow.store.secrets.keyring import Key

_NONCE_BYTES = 12
_PURPOSE = b"pubsubflow connection 1"
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(dict[str, str]).decode


class SecretsLocked(ConfigError):  # noqa: N818 - a state, named as users see it
    """The secrets of a connection cannot be decrypted; the text says which and what to do."""


class Plain(Struct, frozen=True, array_like=True):
    """What of a row is not secret and goes with its secrets: changed beside us, they are lost.

    So nobody who can write to the database alone gets a password sent to another host.
    """

    name: str
    kind: str
    uri: str | None
    extra: str


class Sealed(Struct, frozen=True):
    """Encrypted secrets.

    Attributes:
        key: Id of the key.
        data: Nonce and ciphertext.
    """

    key: str
    data: bytes


def seal(secrets: Mapping[str, str], plain: Plain, key: Key) -> Sealed:
    """Encrypt secrets for a row."""
    nonce = os.urandom(_NONCE_BYTES)
    ciphertext = AESGCM(key.data).encrypt(nonce, _encode(secrets), _PURPOSE + _encode(plain))
    return Sealed(key.id, nonce + ciphertext)


def unseal(sealed: Sealed, plain: Plain, keys: Sequence[Key], *, where: str) -> dict[str, str]:
    """Decrypt the secrets of a row.

    Args:
        sealed: The secrets.
        plain: The rest of the row.
        keys: All that there are.
        where: Where the keys come from, for the error.

    Raises:
        SecretsLocked: The key is not there, or the row was changed.
    """
    key = next((each for each in keys if each.id == sealed.key), None)
    if key is None:
        there = f"has only {', '.join(each.id for each in keys)}" if keys else "is not there"
        raise SecretsLocked(
            f"connection {plain.name!r} is encrypted with key {sealed.key}, and key file {where} "
            f"{there}: bring that key back as a further line, or delete the connection and set it "
            "again"
        )
    nonce, ciphertext = sealed.data[:_NONCE_BYTES], sealed.data[_NONCE_BYTES:]
    try:
        return _decode(AESGCM(key.data).decrypt(nonce, ciphertext, _PURPOSE + _encode(plain)))
    except InvalidTag as error:
        raise SecretsLocked(
            f"the secrets of connection {plain.name!r} do not belong to its row, which was changed "
            "by something else than pubsubflow: delete the connection and set it again"
        ) from error
