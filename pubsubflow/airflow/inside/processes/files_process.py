"""The process of one file: it has imported the file, and its children run the attempts."""

import gc
import os
import select
import signal
import socket
import time
from typing import Any

from pubsubflow.airflow.inside.load import Loaded
from pubsubflow.airflow.inside.passing import Handed, receive_handed
from pubsubflow.airflow.inside.processes.attempts import AttemptsProcess
from pubsubflow.airflow.inside.processes.children import IDLE, AttemptChildren
from pubsubflow.airflow.inside.processes.learning import Learning
from pubsubflow.airflow.inside.processes.output import Output
from pubsubflow.airflow.inside.processes.written_pages import WrittenPages
from pubsubflow.airflow.protocol import BridgeSettings, ClientRequest

_IDLE_SECONDS = 60.0


class FileProcess:
    """Hands the attempts of one file to children until the host closes the stream.

    Args:
        control: The stream from the host, by which clients are handed over.
        found: What the file has made.
        output: The streams of this process.
        settings: How many attempts run at once, and in which children.
    """

    def __init__(
        self, control: socket.socket, found: Loaded, output: Output, settings: BridgeSettings
    ) -> None:
        self._control = control
        self._settings = settings
        self._waiting: list[Handed] = []
        self._learning = Learning()
        self._wake, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        os.set_blocking(self._wake, False)
        self._pages = WrittenPages()
        attempts = AttemptsProcess(
            found, output, self._learning, self._pages, reused=settings.reuse
        )
        self._children = AttemptChildren(attempts.serve, self._forget)

    def serve(self) -> None:
        """Fork and reap; return when the host is gone and all attempts have ended."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        listening = True
        while listening or self._children.busy or self._waiting:
            ready = self._wait(listening=listening)
            if self._wake in ready:
                os.read(self._wake, 4096)
            if self._heard(ready):
                self._learn()
            if listening and self._control.fileno() in ready:
                handed = receive_handed(self._control)
                if handed is not None:
                    self._waiting.append(handed)
                listening = handed is not None
            if listening and self._learning.spoilt:
                self._take_last()
                listening = False
            self._hand_out()
            if listening:
                self._keep_ahead()
            elif self._control.fileno() >= 0:
                self._control.close()

    def _take_last(self) -> None:
        """Take what the host has handed over; it starts another process for all that comes."""
        self._control.shutdown(socket.SHUT_RD)
        while (handed := receive_handed(self._control)) is not None:
            self._waiting.append(handed)

    def _wait(self, *, listening: bool) -> set[int]:
        """Return what is ready of: the stream, the signal of a child's end, children, clients."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        if listening:
            poller.register(self._control, select.POLLIN)
        ends = [time.monotonic() + _IDLE_SECONDS] if len(self._children.idle) > 1 else []
        for child in self._children:
            if child.control.fileno() >= 0:
                poller.register(child.control, select.POLLIN)
            if child.dies_at is not None:
                ends.append(child.dies_at)
            elif child.handed is not None:
                # Nothing but its end is looked for: what it sends is the child's.
                poller.register(child.handed.sock, 0)
        rest = max(min(ends) - time.monotonic(), 0.0) * 1000 if ends else None
        return {fd for fd, _ in poller.poll(rest)}

    def _heard(self, ready: set[int]) -> bool:
        """Do what children and clients have said; return whether an attempt has ended."""
        heard, now = False, time.monotonic()
        for child in self._children:
            # First what it says: a client that has its end closes the stream.
            if child.control.fileno() in ready and IDLE in child.read():
                self._children.came_back(child)
                heard = True
            if child.dies_at is None and child.handed and child.handed.sock.fileno() in ready:
                child.interrupt()
            elif child.dies_at is not None and child.dies_at <= now:
                child.kill()
        # Always: signals that come at once are one.
        return bool(self._children.reap()) or heard

    def _learn(self) -> None:
        if not self._learning.learn():
            return
        self._pages.forget()
        gc.freeze()
        for child in list(self._children.idle):
            if not child.used:  # it would import all that again
                self._children.dismiss(child)

    def _hand_out(self) -> None:
        while self._waiting and self._children.busy < self._settings.attempts:
            # In the list until then: a child that is forked for it closes all that is there.
            self._children.hand_out(self._waiting[0])
            self._waiting.pop(0)

    def _keep_ahead(self) -> None:
        """Fork children ahead of their attempts; end those that were not needed for long."""
        idle = self._children.idle
        while len(idle) < self._settings.ahead and len(self._children) < self._settings.attempts:
            self._children.fork(ahead=True)
        unused = time.monotonic() - _IDLE_SECONDS
        while len(idle) > max(self._settings.ahead, 1) and idle[0].since < unused:
            self._children.dismiss(idle[0])

    def _forget(self) -> None:
        """Close, in a child, what is this process's own."""
        self._control.close()
        for fd in (self._wake, self._wake_writer):
            os.close(fd)
        for handed in self._waiting:
            handed.close()


def share_memory() -> None:
    """Share what is there with all children to come: they must neither move nor look at it."""
    gc.collect()
    gc.freeze()


def file_key(request: ClientRequest) -> tuple[Any, ...]:
    """Return what requests for one file process have in common."""
    return request.folder, request.file, request.legacy, repr(sorted(request.variables.items()))
