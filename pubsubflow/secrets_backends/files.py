"""Secrets backend of this machine: a folder of files."""

import re
from pathlib import Path

import anyio.to_thread

from pubsubflow.errors import ConfigError
from pubsubflow.secrets_backends.chain import SecretKind

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\Z")
_MAX_BYTES = 64 * 1024


class FilesBackend:
    """A folder of files, as Docker and Kubernetes mount secrets.

    A connection is the file `connections/NAME` in it, a variable the file `variables/NAME`, a
    secret the file `NAME`.

    Args:
        folder: The folder.
    """

    name = "files"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return what a file holds, without the line end at its end.

        Raises:
            ConfigError: The file cannot be read.
        """
        if not _FILE_NAME.match(name):
            return None
        folder = self._folder if kind == "secrets" else self._folder / kind
        return await anyio.to_thread.run_sync(_read, folder / name)


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path} has more than {_MAX_BYTES // 1024} KiB")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text in UTF-8") from None
