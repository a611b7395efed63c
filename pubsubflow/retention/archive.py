"""The archive: rows as JSON, a line each, in compressed files of any file system of fsspec."""

import os
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from typing import Any

import anyio.to_thread

from pubsubflow.errors import ConfigError, PubsubflowError, Unavailable
from pubsubflow.model.lazy_import import lazy_module

_GZIP = 16 + zlib.MAX_WBITS
_UNFINISHED = ".part"


class ArchiveUnavailable(Unavailable):
    """The archive cannot be written; nothing is removed meanwhile."""


class Archive:
    """Writes rows into files `<url>/<table>/<first id>-<time>.jsonl.gz`.

    A file appears as a whole, before anything in it is removed. A pass that dies in between writes
    the same rows again later: a reader takes each key once.

    Args:
        url: Of a folder.

    Raises:
        ConfigError: fsspec, or what it needs for the URL, is not installed.
    """

    def __init__(self, url: str) -> None:
        if find_spec("fsspec") is None:
            raise ConfigError("retention.archive needs fsspec: pip install 'pubsubflow[archive]'")
        self._url = url.rstrip("/")
        try:
            self._files, self._folder = lazy_module("fsspec").core.url_to_fs(
                self._url, skip_instance_cache=True
            )
        except (ImportError, ValueError) as error:
            raise ConfigError(f"retention.archive {url!r} cannot be used: {error}") from error

    async def write(self, table: str, first: int, pages: AsyncIterator[list[str]]) -> int:
        """Write rows and return their number; no file is made for none.

        Args:
            table: Of the rows.
            first: The first id of their slice.
            pages: The rows as JSON.

        Raises:
            ArchiveUnavailable: A write failed; no file is made.
        """
        moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        path = f"{self._folder}/{table}/{first:020}-{moment}.jsonl.gz"
        squeezed = zlib.compressobj(wbits=_GZIP)
        rows = 0
        file: Any = None
        try:
            async for page in pages:
                rows += len(page)
                data = await anyio.to_thread.run_sync(partial(_squeeze, squeezed, page))
                file = file or await anyio.to_thread.run_sync(self._open, path)
                await anyio.to_thread.run_sync(file.write, data)
            if file is not None:
                await anyio.to_thread.run_sync(self._finish, file, squeezed.flush(), path)
        except PubsubflowError:
            raise
        except Exception as error:  # each of fsspec's file systems raises errors of its own
            raise ArchiveUnavailable(f"{path} cannot be written: {error!r}") from error
        return rows

    def _open(self, path: str) -> Any:
        # Object stores have no folders; where one cannot be made, the file tells why.
        with suppress(OSError):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        return self._files.open(path + _UNFINISHED, "wb")

    def _finish(self, file: Any, rest: bytes, path: str) -> None:
        file.write(rest)
        file.flush()
        with suppress(OSError, AttributeError):  # an object store has no descriptor
            os.fsync(file.fileno())
        file.close()
        self._files.mv(path + _UNFINISHED, path)


def _squeeze(squeezed: Any, page: Iterable[str]) -> bytes:
    data: bytes = squeezed.compress("".join(f"{row}\n" for row in page).encode())
    return data
