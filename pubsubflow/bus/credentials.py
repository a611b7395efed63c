"""NATS credentials: tokens and passwords in files, NKEYs, and `.creds` files (JWT and NKEY).

NKEYs are ed25519 keys in base32 with a prefix and a CRC-16 (nats-io/nkeys, `strkey.go`); they sign
a nonce of the server. Files are read for every connection, so that rotated credentials are used
from the next one on.
"""

import base64
import binascii
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from msgspec import Struct

from pubsubflow.errors import ConfigError
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ed25519 = lazy_module("cryptography.hazmat.primitives.asymmetric.ed25519")
P = ParamSpec("P")
T = TypeVar("T")
_SEED = 18 << 3
_SEED_BYTES, _PREFIX_BYTES, _CHECK_BYTES = 32, 2, 2
_BLOCK = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END \1-{3,}")
_JWT, _NKEY = "NATS USER JWT", "USER NKEY SEED"


class Nkey(Struct, frozen=True):
    """A private NKEY; its repr does not show the seed.

    Attributes:
        public: The public key as servers know it.
    """

    public: str
    private: "Ed25519PrivateKey"

    def __repr__(self) -> str:
        return f"Nkey({self.public})"

    def sign(self, nonce: str) -> bytes:
        """Return the signature of a nonce, in base64."""
        return base64.b64encode(self.private.sign(nonce.encode()))


class NkeyFile:
    """An NKEY in a file, read at each use.

    Args:
        path: A file with a seed, or a `.creds` file.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def nkey(self) -> Nkey:
        """Return the key.

        Raises:
            ConfigError: The file cannot be read, or does not contain it.
        """
        text = read_text(self._path)
        blocks = dict(_BLOCK.findall(text))
        try:
            return _read_seed(blocks.get(_NKEY, text.strip()))
        except ValueError as error:
            raise ConfigError(f"{self._path} does not contain the seed of an NKEY (SU…)") from error

    def sign(self, nonce: str) -> bytes:
        """Return the signature of a nonce, in base64."""
        return self.nkey().sign(nonce)

    def jwt(self) -> bytes:
        """Return the JWT beside the seed.

        Raises:
            ConfigError: The file cannot be read, or does not contain it.
        """
        blocks: dict[str, str] = dict(_BLOCK.findall(read_text(self._path)))
        if _JWT not in blocks:
            raise ConfigError(f"{self._path} is not a .creds file: it has no user JWT")
        return blocks[_JWT].encode()


def secret_source(path: str | None, text: str | None) -> Callable[[], str] | str | None:
    """Return a secret, or a function that reads it from a file at each call.

    Raises:
        ConfigError: The file cannot be read now.
    """
    if path is None:
        return text
    read_text(path)
    return retryable(lambda: read_text(path).rstrip("\r\n"))


def retryable(read: Callable[P, T]) -> Callable[P, T]:
    """Return a function that raises OSError in place of ConfigError, so that nats-py retries."""

    # The file may be in the middle of a rotation when nats-py reconnects.
    @wraps(read)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except ConfigError as error:
            raise OSError(str(error)) from error

    return wrapped


def read_text(path: str) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is not a text file"
        raise ConfigError(
            f"{path}, which NATS's settings name, cannot be read: {reason}"
        ) from error


def _read_seed(text: str) -> Nkey:
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    if len(raw) != _PREFIX_BYTES + _SEED_BYTES + _CHECK_BYTES or raw[0] & 0xF8 != _SEED:
        raise ValueError("no seed")
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if _crc(body) != check:
        raise ValueError("damaged")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(body[_PREFIX_BYTES:])
    kind = bytes([(raw[0] & 7) << 5 | raw[1] >> 3])
    public = kind + private.public_key().public_bytes_raw()
    return Nkey(base64.b32encode(public + _crc(public)).decode().rstrip("="), private)


def _crc(data: bytes) -> bytes:
    """Return CRC-16/XMODEM, low byte first."""
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
