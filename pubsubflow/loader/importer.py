"""Imports DAG files in child processes, each with a time limit."""

import os
import signal
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from pubsubflow.authoring.loading.importing import make_bundle
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.messages import Imported, ImportOrder
from pubsubflow.model.spec import LoadedFile
from pubsubflow.runner.forkserver import ForkServer

_TARGET = "pubsubflow.loader.child:import_file"
_GRACE_SECONDS = 1.0
_DECODER = msgspec.msgpack.Decoder(Imported)


class LoaderSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the loader works.

    Attributes:
        import_seconds: Time limit for importing one file.
        processes: Imports side by side; the number of CPUs when None.
        gather_milliseconds: How long changes that follow each other are gathered.
        rescan_seconds: Safety net: look at the folder anyway after that long without news.
    """

    import_seconds: float = 30.0
    processes: int | None = None
    gather_milliseconds: int = 200
    rescan_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Raise ValueError for limits that make no sense."""
        if self.import_seconds <= 0 or self.rescan_seconds <= 0 or self.gather_milliseconds < 1:
            raise ValueError("time limits must be above zero")
        if self.processes is not None and self.processes < 1:
            raise ValueError("at least one process is needed")


class Importer:
    """Imports files of one folder, some side by side.

    Args:
        folder: The DAGs folder.
        fork_server: Gives warm processes.
        settings: Limits.
    """

    def __init__(self, folder: Folder, fork_server: ForkServer, settings: LoaderSettings) -> None:
        self._folder = folder
        self._fork_server = fork_server
        self._seconds = settings.import_seconds
        self._limiter = anyio.CapacityLimiter(settings.processes or os.cpu_count() or 1)

    async def load(self, file: str) -> Imported:
        """Import one file; what its code does wrong is in the answer.

        Raises:
            OSError: The system refuses another process.
        """
        async with self._limiter:
            order = ImportOrder(str(self._folder.root), file, self._seconds)
            silence = os.open(os.devnull, os.O_WRONLY)
            try:
                child = await self._fork_server.fork(
                    _TARGET, msgspec.msgpack.encode(order), output=(silence, silence)
                )
            finally:
                os.close(silence)
            async with child:
                try:
                    with anyio.fail_after(self._seconds + _GRACE_SECONDS):
                        return _DECODER.decode(await child.receive())
                except TimeoutError:
                    return self._failed(file, f"the import took longer than {self._seconds:g} s")
                except anyio.EndOfStream:
                    return self._failed(file, _ending(await child.wait()))

    def _failed(self, file: str, message: str) -> Imported:
        path = Path(self._folder.root, file)
        text = self._folder.read(file)
        files = {} if text is None else {file: text}
        bundle = make_bundle(str(self._folder.root), file, files)
        return Imported(LoadedFile(file, bundle, error=f"{path}: {message}"))


def _ending(code: int) -> str:
    if code < 0:
        return f"the import was ended by {signal.Signals(-code).name}"
    return f"the import ended its process with exit code {code}"
