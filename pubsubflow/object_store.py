"""Object stores: files below a URL of any file system of fsspec, or of a plugin's own.

All calls run in threads with a time limit: a store that hangs holds up those alone who wait for it,
and takes no more threads than it has slots.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import anyio

from pubsubflow.errors import ConfigError, NotFound, Unavailable
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.plugins import has_plugin, load_plugin
from pubsubflow.threads.thread_slots import ThreadSlots

_KIND = "log-store"
_BLOCK_BYTES = 1 << 20
_THREADS = 8
# Without folders; making one there may make a bucket.
_WITHOUT_FOLDERS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci")

T = TypeVar("T")


class ObjectStoreUnavailable(Unavailable):
    """An object store cannot be read or written at this moment."""


@runtime_checkable
class LogStore(Protocol):
    """A store of task output: names are relative paths, contents are compressed JSON lines.

    A plugin registers a callable `(url: str) -> LogStore` in the group `pubsubflow.log_stores`
    under the scheme of its URLs. Writing a name again replaces it; deleting what is gone does
    nothing. Failures that may pass are raised as `ObjectStoreUnavailable`.
    """

    async def write(self, name: str, data: bytes) -> None:
        """Write a file, durably."""

    async def read(self, name: str) -> bytes:
        """Return the content of a file; `NotFound` if it does not exist."""

    async def delete(self, names: Sequence[str]) -> None:
        """Delete files."""


class FileStore:
    """Files below a URL of fsspec; a `LogStore`.

    Args:
        url: Of a folder.
        setting: The name of the setting that has the URL, for errors.
        seconds: Time limit of one call.

    Raises:
        ConfigError: fsspec, or what it needs for the URL, is not installed.
    """

    def __init__(self, url: str, *, setting: str, seconds: float = 30.0) -> None:
        if find_spec("fsspec") is None:
            raise ConfigError(f"{setting} needs fsspec: pip install 'pubsubflow[archive]'")
        self.url = url.rstrip("/")
        try:
            self._files, self._folder = lazy_module("fsspec").core.url_to_fs(
                self.url, skip_instance_cache=True
            )
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{setting} {url!r} cannot be used: {error}") from error
        kinds = self._files.protocol
        names = (kinds,) if isinstance(kinds, str) else kinds
        self._has_folders = set(names).isdisjoint(_WITHOUT_FOLDERS)
        self._seconds = seconds
        self._threads = ThreadSlots(_THREADS)

    async def write(self, name: str, data: bytes) -> None:
        """Write a file, durably.

        Raises:
            ObjectStoreUnavailable: The store does not take it.
        """
        await self._call(self._write, name, (data,))

    async def write_file(self, name: str, source: Path) -> None:
        """Write the content of a file of this machine, durably.

        Raises:
            ObjectStoreUnavailable: The store does not take it.
        """
        await self._call(self._upload, name, source)

    async def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            NotFound: It does not exist.
            ObjectStoreUnavailable: The store does not give it.
        """
        data: bytes = await self._call(self._read, name)
        return data

    async def read_file(self, name: str, target: Path) -> None:
        """Write a file's content into a file of this machine, which appears as a whole.

        Raises:
            NotFound: It does not exist.
            ObjectStoreUnavailable: The store does not give it.
        """
        await self._call(self._download, name, target)

    async def list(self, folder: str = "") -> Mapping[str, int]:
        """Return the names of all files below a folder, each with its size in bytes.

        Raises:
            ObjectStoreUnavailable: The store does not list them.
        """
        found: Mapping[str, int] = await self._call(self._list, folder)
        return found

    async def delete(self, names: Sequence[str]) -> None:
        """Delete files; those that do not exist are passed over.

        Raises:
            ObjectStoreUnavailable: The store does not delete them.
        """
        if names:
            await self._call(self._delete, names)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            with anyio.fail_after(self._seconds):
                return await self._threads.run(partial(function, *arguments))
        except FileNotFoundError as error:
            raise NotFound("object", f"{self.url}/{arguments[0]}") from error
        except TimeoutError as error:
            raise ObjectStoreUnavailable(
                f"{self.url} did not answer within {self._seconds:g} s"
            ) from error
        except Exception as error:  # each of fsspec's file systems raises errors of its own
            raise ObjectStoreUnavailable(f"{self.url} cannot be used: {error!r}") from error

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _write(self, name: str, blocks: Iterable[bytes]) -> None:
        path = self._path(name)
        try:
            if self._has_folders:
                with suppress(OSError):  # where one cannot be made, the file says why
                    self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(path, "wb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                with suppress(OSError, AttributeError):  # an object store has no descriptor
                    os.fsync(file.fileno())
        except FileNotFoundError as error:  # the bucket; not a file that may be missing
            raise OSError(f"{path} cannot be written: {error}") from error

    def _upload(self, name: str, source: Path) -> None:
        with source.open("rb") as file:
            self._write(name, iter(lambda: file.read(_BLOCK_BYTES), b""))

    def _read(self, name: str) -> bytes:
        data: bytes = self._files.cat_file(self._path(name))
        return data

    def _download(self, name: str, target: Path) -> None:
        part = target.with_name(f"{target.name}.part")
        with self._files.open(self._path(name), "rb") as file, part.open("wb") as copy:
            while block := file.read(_BLOCK_BYTES):
                copy.write(block)
        part.replace(target)

    def _list(self, folder: str) -> Mapping[str, int]:
        self._files.invalidate_cache()
        start = self._folder.lstrip("/")
        try:
            found = self._files.find(self._path(folder).rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        return {
            path.lstrip("/")[len(start) + 1 :]: facts.get("size") or 0
            for path, facts in found.items()
        }

    def _delete(self, names: Sequence[str]) -> None:
        paths = [self._path(name) for name in names]
        try:
            self._files.rm(paths)
        except FileNotFoundError:
            for path in paths:
                with suppress(FileNotFoundError):
                    self._files.rm(path)
        if self._has_folders:
            for path in paths:
                self._remove_folders(path.rpartition("/")[0])

    def _remove_folders(self, folder: str) -> None:
        """Remove a folder that is empty now, and the empty ones above it."""
        while len(folder) > len(self._folder):
            try:
                self._files.rmdir(folder)
            except OSError:  # something is in it, or it is gone
                return
            folder = folder.rpartition("/")[0]


def open_log_store(url: str, *, setting: str = "logs.store") -> LogStore:
    """Return the log store of a URL: a plugin's for its scheme, else one of fsspec.

    Raises:
        ConfigError: The plugin cannot be imported or made, or a library is not installed.
    """
    scheme = url.partition("://")[0]
    if not has_plugin(_KIND, scheme):
        return FileStore(url, setting=setting)
    try:
        store = load_plugin(_KIND, scheme)(url)
    except Exception as error:
        reason = error if isinstance(error, ConfigError) else repr(error)
        raise ConfigError(f"{setting} {url!r} cannot be used: {reason}") from error
    if not isinstance(store, LogStore):
        raise ConfigError(f"{setting} {url!r}: its plugin does not return a pubsubflow LogStore")
    return store
