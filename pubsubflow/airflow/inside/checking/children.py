"""The children in which files are loaded, several at a time, each under a limit of time."""

import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from pubsubflow.airflow.findings import FileFindings, FolderRequest, LoadError
from pubsubflow.airflow.inside.checking.one import check_file
from pubsubflow.airflow.inside.loading.explain import shorten
from pubsubflow.airflow.inside.processes.learning import Learning

_CHUNK = 1 << 16
_DECODER = msgspec.json.Decoder(FileFindings)


class _Child(Struct):
    file: str
    process: int
    pipe: int
    deadline: float
    data: bytearray
    late: bool = False


class Children:
    """Loads files in children of this process.

    What one child had to import of providers and libraries is imported here before the next one is
    forked: a folder's files have most of that in common.

    Args:
        request: What is to be checked.
        root: The folder that file names are relative to.
        jobs: How many children there are at most at once.
    """

    def __init__(self, request: FolderRequest, root: str, *, jobs: int) -> None:
        self._request = request
        self._root = root
        self._jobs = jobs
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, _Child] = {}
        self._learning = Learning()

    def check(self, files: list[str]) -> Iterator[FileFindings]:
        """Yield what is found in each file, as soon as it is known."""
        waiting = deque(files)
        while waiting or self._running:
            while waiting and len(self._running) < self._jobs:
                self._start(waiting.popleft())
            yield from self._finished()

    def _start(self, file: str) -> None:
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            self._be_child(file, writing)
        os.close(writing)
        deadline = time.monotonic() + self._request.seconds
        self._running[reading] = _Child(file, process, reading, deadline, bytearray())
        self._selector.register(reading, selectors.EVENT_READ)

    def _be_child(self, file: str, writing: int) -> NoReturn:
        code = 1
        try:
            # A process group of its own: what the file starts ends with it.
            os.setsid()
            os.dup2(1, 2)
            self._learning.begin()
            data = msgspec.json.encode(check_file(file, self._root, self._request))
            # A process with threads must not fork: what may have started them is not learnt.
            if threading.active_count() == 1:
                self._learning.end()
            # Last: this process is killed when its answer is there.
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(data)
            code = 0
        finally:
            os._exit(code)

    def _finished(self) -> Iterator[FileFindings]:
        soonest = min(child.deadline for child in self._running.values())
        ready = self._selector.select(max(soonest - time.monotonic(), 0))
        for key, _ in ready:
            child = self._running[key.fd]
            chunk = os.read(key.fd, _CHUNK)
            child.data += chunk
            if not chunk:
                yield self._end(child)
        now = time.monotonic()
        for child in [each for each in self._running.values() if each.deadline <= now]:
            child.late = True
            yield self._end(child)

    def _end(self, child: _Child) -> FileFindings:
        del self._running[child.pipe]
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        # It may have left already, with all that it started.
        with suppress(ProcessLookupError):
            os.killpg(child.process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child.process, 0)[1])
        self._learning.learn()
        try:
            return _DECODER.decode(child.data)
        except msgspec.DecodeError:
            return self._lost(child, status)

    def _lost(self, child: _Child, status: int) -> FileFindings:
        seconds = self._request.seconds
        if child.late:
            reason = f"loading takes longer than {seconds:g} s"
            remedy = "move what takes so long into a task"
        else:
            reason = f"the process that loads it ends: {_exit_in_words(status)}"
            remedy = "nothing at the top of a file may end the process"
        name = shorten(child.file, [self._root])
        return FileFindings(name, errors=[LoadError(reason, remedy, name)])


def _exit_in_words(status: int) -> Any:
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
