"""Where the loader puts what it found."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pubsubflow.model.spec import LoadedFile


class VersionSink(Protocol):
    """Keeps what importing the files gave. All paths are relative to the DAGs folder.

    A file may be saved again unchanged. A DAG may come from another file than before: in one
    `save` the old file then comes without it.
    """

    async def known(self) -> Mapping[str, str]:
        """Return file → bundle hash of the files stored without error."""

    async def save(self, files: Sequence[LoadedFile]) -> None:
        """Store what importing these files gave, errors included.

        Raises:
            Unavailable: Worth a retry.
        """

    async def remove(self, files: Sequence[str]) -> None:
        """Note that these files are gone.

        Raises:
            Unavailable: Worth a retry.
        """
