"""The interface of the store in which the loader keeps what DAG files define, and its use."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import anyio
import structlog

from pubsubflow.errors import Unavailable
from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.model.source.stored_imports import StoredImport
from pubsubflow.model.spec import LoadedFile

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0

T = TypeVar("T")


class DagStore(Protocol):
    """The store of what the DAG files define. All paths are relative to the DAGs folder.

    A file may be saved again unchanged. A DAG may come from another file than before: in one
    `save` the old file then comes without it. All calls may raise Unavailable, worth a retry.
    """

    async def imported_files(self) -> Mapping[str, str]:
        """Return file → hash of what was read, of the files stored."""

    async def stored_imports(self) -> Mapping[str, StoredImport]:
        """Return those files whose imports are stored as their records say."""

    async def save_bundle(
        self,
        bundle: str,
        manifest: Manifest,
        read: Callable[[BundleFile], bytes],
        before: tuple[str, Manifest] | None = None,
    ) -> None:
        """Store a bundle.

        Args:
            bundle: Its hash.
            manifest: Its files.
            read: Returns the content of a file that is not stored yet.
            before: A bundle that was stored earlier, whose files need not be looked up.
        """

    async def save(self, files: Sequence[LoadedFile], records: Mapping[str, bytes]) -> None:
        """Store the results of importing files, errors included; their bundles are stored.

        Args:
            files: The results.
            records: File → record, of those that have one.
        """

    async def advance(self, bundle: str, files: Sequence[str]) -> None:
        """Put a stored bundle in force for the DAGs of files, whose versions stay."""

    async def remove(self, files: Sequence[str]) -> None:
        """Remove files that are gone; their DAGs are missing from now on."""

    async def retire(self, seconds: float) -> float | None:
        """Retire DAGs that have been missing for that long; return when the next one is due.

        Returns:
            Seconds from now; None when no DAG is missing.
        """


async def retry_until_available(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while the store is out of reach, or the system refuses a process."""
    said: object = None
    while True:
        try:
            return await call()
        except (Unavailable, OSError) as error:
            # What lasts is said once, not with each try: with each, its text may name another file.
            reason = error.errno if isinstance(error, OSError) else str(error)
            if reason != said:
                said = reason
                log.warning(
                    "loader.retry_scheduled", error=str(error), every_seconds=_RETRY_SECONDS
                )
            await anyio.sleep(_RETRY_SECONDS)


def log_stored(files: Sequence[LoadedFile]) -> None:
    """Log what was stored of files."""
    for loaded in files:
        if loaded.error is None:
            log.info("loader.file_loaded", file=loaded.file, dags=len(loaded.dags))
        else:
            log.warning("loader.file_failed", file=loaded.file, error=loaded.error)
        for warning in loaded.warnings:
            log.warning("loader.file_warning", file=loaded.file, warning=warning)
