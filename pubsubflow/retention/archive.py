"""The archive: rows in files of any file system of fsspec, as compressed JSON or as Parquet."""

import os
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import anyio.to_thread

from pubsubflow.errors import ConfigError, PubsubflowError, Unavailable
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.retention.parquet import ParquetFile
from pubsubflow.store.retention import Column

ArchiveFormat = Literal["jsonl", "parquet"]

_GZIP = 16 + zlib.MAX_WBITS
_UNFINISHED = ".part"


class ArchiveUnavailable(Unavailable):
    """The archive cannot be written; nothing is removed meanwhile."""


class RowFile(Protocol):
    """A file of rows that is being written."""

    def write(self, page: Sequence[str]) -> None:
        """Write rows, each a JSON object."""

    def finish(self) -> None:
        """Write what is still in memory; the file itself stays open."""


class Archive:
    """Writes rows into files `<url>/<table>/<first id>-<time>.jsonl.gz`, or `….parquet`.

    A file appears as a whole, before anything in it is removed. A pass that dies in between writes
    the same rows again later: a reader takes each key once.

    Args:
        url: Of a folder.
        format: Of the files.

    Raises:
        ConfigError: A library that the URL or the format needs is not installed.
    """

    def __init__(self, url: str, format: ArchiveFormat = "jsonl") -> None:
        if find_spec("fsspec") is None:
            raise ConfigError("retention.archive needs fsspec: pip install 'pubsubflow[archive]'")
        if format == "parquet" and find_spec("pyarrow") is None:
            raise ConfigError(
                "retention.archive_format = 'parquet' needs pyarrow: "
                "pip install 'pubsubflow[parquet]'"
            )
        self._url = url.rstrip("/")
        self._format = format
        try:
            self._files, self._folder = lazy_module("fsspec").core.url_to_fs(
                self._url, skip_instance_cache=True
            )
        except (ImportError, ValueError) as error:
            raise ConfigError(f"retention.archive {url!r} cannot be used: {error}") from error

    async def write(
        self,
        table: str,
        first: int,
        pages: AsyncIterator[list[str]],
        columns: Sequence[Column] = (),
    ) -> int:
        """Write rows and return their number; no file is made for none.

        Args:
            table: Of the rows.
            first: The first id of their slice.
            pages: The rows as JSON.
            columns: The columns of the rows; JSON does without.

        Raises:
            ArchiveUnavailable: A write failed; no file is made.
        """
        suffix = "parquet" if self._format == "parquet" else "jsonl.gz"
        moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        path = f"{self._folder}/{table}/{first:020}-{moment}.{suffix}"
        rows = 0
        file: Any = None
        written: RowFile | None = None
        try:
            async for page in pages:
                rows += len(page)
                if written is None:
                    file = await anyio.to_thread.run_sync(self._open, path)
                    written = self._rows(file, columns)
                await anyio.to_thread.run_sync(written.write, page)
            if written is not None:
                await anyio.to_thread.run_sync(self._finish, file, written.finish, path)
        except PubsubflowError:
            raise
        except Exception as error:  # each of fsspec's file systems raises errors of its own
            raise ArchiveUnavailable(f"{path} cannot be written: {error!r}") from error
        return rows

    def _rows(self, file: Any, columns: Sequence[Column]) -> RowFile:
        return ParquetFile(file, columns) if self._format == "parquet" else _JsonLines(file)

    def _open(self, path: str) -> Any:
        # Object stores have no folders; where one cannot be made, the file tells why.
        with suppress(OSError):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        return self._files.open(path + _UNFINISHED, "wb")

    def _finish(self, file: Any, finish: Callable[[], None], path: str) -> None:
        finish()
        file.flush()
        with suppress(OSError, AttributeError):  # an object store has no descriptor
            os.fsync(file.fileno())
        file.close()
        self._files.mv(path + _UNFINISHED, path)


class _JsonLines:
    """Rows as JSON, a line each, compressed by gzip."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._squeezed = zlib.compressobj(wbits=_GZIP)

    def write(self, page: Sequence[str]) -> None:
        lines = "".join(f"{row}\n" for row in page)
        self._file.write(self._squeezed.compress(lines.encode()))

    def finish(self) -> None:
        self._file.write(self._squeezed.flush())
