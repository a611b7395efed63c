"""The interface of the store in which the loader keeps what DAG files define."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.model.source.stored_imports import StoredImport
from pubsubflow.model.spec import LoadedFile


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
        self, bundle: str, manifest: Manifest, read: Callable[[BundleFile], bytes]
    ) -> None:
        """Store a bundle; `read` returns the content of a file that is not stored yet."""

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
