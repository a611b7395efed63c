"""Children of the importer: processes that import files of a bundle, one after the other."""

import os
from collections.abc import Callable

import anyio
import msgspec

from pubsubflow.loader.messages import ImportRequest, ImportResult
from pubsubflow.runner.forked_process import ChildProcess
from pubsubflow.runner.forkserver import ForkServer

_TARGET = "pubsubflow.loader.child:import_files"
_DECODER = msgspec.msgpack.Decoder(ImportResult)
_GRACE_SECONDS = 3.0


class ImportChild:
    """A process that has imported files, and may import more.

    Args:
        child: The process.
        folder: The folder of its bundle on disk.

    Attributes:
        files: How many it has imported.
    """

    def __init__(self, child: ChildProcess, folder: str) -> None:
        self._child = child
        self.folder = folder
        self.files = 0

    async def send(self, request: ImportRequest) -> None:
        """Have it import one more file.

        Raises:
            anyio.BrokenResourceError: It is gone.
        """
        await self._child.send(msgspec.msgpack.encode(request))

    async def receive(self, seconds: float) -> ImportResult:
        """Return the result of an import.

        Args:
            seconds: The file's time limit.

        Raises:
            TimeoutError: It has not ended in time.
            anyio.EndOfStream: The process is gone.
        """
        # The child interrupts itself at the limit. This is for code that does not give up the
        # interpreter, and the child is killed then.
        with anyio.fail_after(seconds + _GRACE_SECONDS):
            found = _DECODER.decode(await self._child.receive())
        self.files += 1
        return found

    async def wait(self) -> int:
        """Wait until the process is gone; return its exit code, negative for a signal."""
        return await self._child.wait()

    async def aclose(self) -> None:
        """End it."""
        await self._child.aclose()


class ImportChildren:
    """The children that wait for their next file, by what they may import.

    Args:
        fork_server: Forks them.
        files: How many files each imports at most.
        wanted: Returns whether there are files that wait for a child.
    """

    def __init__(self, fork_server: ForkServer, files: int, wanted: Callable[[], bool]) -> None:
        self._fork_server = fork_server
        self._files = files
        self._wanted = wanted
        self._idle: dict[tuple[str, str], list[ImportChild]] = {}

    async def fork(self, request: ImportRequest) -> ImportChild:
        """Fork a new child, which begins with a file at once.

        Raises:
            OSError: The system refuses another process.
        """
        silence = os.open(os.devnull, os.O_WRONLY)
        try:
            argument = msgspec.msgpack.encode(request)
            child = await self._fork_server.fork(_TARGET, argument, output=(silence, silence))
        finally:
            os.close(silence)
        return ImportChild(child, request.folder)

    def take(self, key: tuple[str, str]) -> ImportChild | None:
        """Return a child that has imported other files, and may import those of this key."""
        waiting = self._idle.get(key)
        return waiting.pop() if waiting else None

    async def give_back(self, key: tuple[str, str], child: ImportChild) -> None:
        """Keep a child for another file, if there is one and it may import it."""
        if child.files < self._files and self._wanted():
            self._idle.setdefault(key, []).append(child)
        else:
            await child.aclose()

    async def end_idle(self) -> None:
        """End those that wait, if no file waits for them."""
        while self._idle and not self._wanted():
            for child in self._idle.popitem()[1]:
                await child.aclose()
