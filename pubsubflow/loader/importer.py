"""The importer: imports DAG files in child processes, each within a time limit."""

import os
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
from msgspec import Meta, Struct

from pubsubflow.authoring.dag_files import make_bundle
from pubsubflow.exit_codes import describe_exit
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.messages import ImportRequest, ImportResult
from pubsubflow.model.ranges import Processes, Seconds
from pubsubflow.model.spec import LoadedFile
from pubsubflow.runner.forkserver import ForkServer

_TARGET = "pubsubflow.loader.child:import_file"
_GRACE_SECONDS = 1.0
_DECODER = msgspec.msgpack.Decoder(ImportResult)


class LoaderSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the loader.

    Attributes:
        import_seconds: Time limit for importing one file.
        processes: How many imports run at once; the number of CPUs when None.
        gather_milliseconds: How long changes that follow each other are gathered.
        rescan_seconds: Interval of scans without a notification, in case one got lost.
    """

    import_seconds: Seconds = 30.0
    processes: Processes | None = None
    gather_milliseconds: Annotated[int, Meta(ge=1, le=60_000)] = 200
    rescan_seconds: Seconds = 60.0


class Importer:
    """Imports files of one folder, several at once.

    Args:
        folder: The DAGs folder.
        fork_server: Forks the child processes.
        settings: Limits.
    """

    def __init__(self, folder: Folder, fork_server: ForkServer, settings: LoaderSettings) -> None:
        self._folder = folder
        self._fork_server = fork_server
        self._seconds = settings.import_seconds
        self._limiter = anyio.CapacityLimiter(settings.processes or os.cpu_count() or 1)

    async def load(self, file: str) -> ImportResult:
        """Import one file; an error of its code is in the result.

        Raises:
            OSError: The system refuses another process.
        """
        async with self._limiter:
            request = ImportRequest(str(self._folder.root), file, self._seconds)
            silence = os.open(os.devnull, os.O_WRONLY)
            try:
                child = await self._fork_server.fork(
                    _TARGET, msgspec.msgpack.encode(request), output=(silence, silence)
                )
            finally:
                os.close(silence)
            async with child:
                try:
                    # The child interrupts itself at the limit. This is for code that does not give
                    # up the interpreter, and the child is killed at the end of the block.
                    with anyio.fail_after(self._seconds + _GRACE_SECONDS):
                        return _DECODER.decode(await child.receive())
                except TimeoutError:
                    return self._failed(file, f"the import took longer than {self._seconds:g} s")
                except anyio.EndOfStream:
                    ending = describe_exit(await child.wait())
                    return self._failed(file, f"the import's process ended with {ending}")

    def _failed(self, file: str, message: str) -> ImportResult:
        path = Path(self._folder.root, file)
        text = self._folder.read(file)
        files = {} if text is None else {file: text}
        bundle = make_bundle(str(self._folder.root), file, files)
        return ImportResult(LoadedFile(file, bundle, error=f"{path}: {message}"))
