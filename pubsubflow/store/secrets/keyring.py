"""The keyring: a file with the keys that encrypt the secrets of connections.

A line has a key, `psfkey_` and 32 bytes in base64, and optionally the vault (a database's id) that
it was created for. All keys decrypt. The primary key encrypts: the first one of the vault, or else
the first one without a vault. A rotation drops no key of another vault. Empty lines and lines that
begin with `#` are ignored. Only the owner may have access to the file.
"""

import base64
import binascii
import contextlib
import os
import secrets
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import anyio.to_thread
from msgspec import Struct

from pubsubflow.errors import ConfigError
from pubsubflow.secrets_backends.settings import BackendSettings

KEY_FILE_NAME = "keys"
_BYTES = 32
_MARK = "psfkey_"
_OTHERS = 0o077
_HEAD = (
    "# Keys of pubsubflow's connections, with their vaults; the first one encrypts. Keep a copy,\n"
    "# but not where the database's backups are.\n"
)


class SecretsSettings(BackendSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the keyring and of secrets backends.

    Attributes:
        key_file: Path of the keyring; `keys` in the home folder by default. Daemons that share a
            Postgres need the same keys.
    """

    key_file: Path | None = None


class EncryptionKey(Struct, frozen=True):
    """An encryption key; its repr does not show it.

    Attributes:
        vault: Id of the database that it was created for; empty for any.
    """

    data: bytes
    vault: str = ""

    @property
    def id(self) -> str:
        """The id of the key in rows: a hash that reveals nothing of the key."""
        return blake2b(self.data, digest_size=8, person=b"psf-key-id").hexdigest()

    def __repr__(self) -> str:
        return f"Key({self.id})"


class Keyring:
    """A keyring; its file need not exist yet.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    async def read(self) -> tuple[EncryptionKey, ...]:
        """Return the keys, in the order of the file; empty if the file does not exist.

        Raises:
            ConfigError: Others than the owner have access to the file, or it is damaged.
        """
        return await anyio.to_thread.run_sync(self._read)

    async def write(self, keys: tuple[EncryptionKey, ...]) -> None:
        """Replace the keys atomically.

        Raises:
            ConfigError: The file cannot be written.
        """
        await anyio.to_thread.run_sync(self._write, keys)

    def _read(self) -> tuple[EncryptionKey, ...]:
        try:
            with self.path.open(encoding="ascii") as file:
                mode = os.fstat(file.fileno()).st_mode
                if mode & _OTHERS:
                    raise ConfigError(
                        f"key file {self.path} can be read by others (mode {mode & 0o777:o}): run "
                        f"chmod 600 {self.path}"
                    )
                lines = [line.strip() for line in file]
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"key file {self.path} cannot be read: {_reason(error)}") from error
        return tuple(
            self._key(number, line)
            for number, line in enumerate(lines, 1)
            if line and not line.startswith("#")
        )

    def _key(self, number: int, line: str) -> EncryptionKey:
        text, _, vault = line.partition(" ")
        with contextlib.suppress(binascii.Error):
            data = base64.b64decode(text.removeprefix(_MARK), altchars=b"-_", validate=True)
            if text.startswith(_MARK) and len(data) == _BYTES:
                return EncryptionKey(data, vault.strip())
        raise ConfigError(f"line {number} of key file {self.path} is not a key: restore the file")

    def _write(self, keys: tuple[EncryptionKey, ...]) -> None:
        """Write a new file and rename it over the old one, durably."""
        lines = (_line(key) for key in keys)
        draft = self.path.with_name(f"{self.path.name}.new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(_HEAD)
                file.writelines(lines)
                file.flush()
                os.fsync(descriptor)
            draft.replace(self.path)
            # The rename itself is durable only once the folder is synced.
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ConfigError(
                f"key file {self.path} cannot be written: {_reason(error)}; name another one with "
                "secrets.key_file"
            ) from error


def new_key(vault: str) -> EncryptionKey:
    """Return a new random key for a vault."""
    return EncryptionKey(secrets.token_bytes(_BYTES), vault)


def primary_key(keys: Sequence[EncryptionKey], vault: str) -> EncryptionKey | None:
    """Return the key that encrypts for a vault, if there is one."""
    return next((key for owner in (vault, "") for key in keys if key.vault == owner), None)


def _line(key: EncryptionKey) -> str:
    return f"{_MARK}{base64.urlsafe_b64encode(key.data).decode()} {key.vault}".rstrip() + "\n"


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
