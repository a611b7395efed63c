"""Airflow's own wire, for processes that an operator starts: virtualenv, external Python.

They find a file descriptor in `__AIRFLOW_SUPERVISOR_FD`, send frames `[id, body, carrier]` of four
bytes of length and MessagePack, and expect `[id, body, error]`. A thread serves them, which is
started with the first such process: most attempts start none.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from airflow.sdk.execution_time import comms as messages
from pydantic import TypeAdapter

from pubsubflow.runner.frames import receive_frame

_VARIABLE = "__AIRFLOW_SUPERVISOR_FD"
_LOG = 2
_JOIN_SECONDS = 1.0
_STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.system", "os.fork", "os.forkpty"})


class _Wire:
    """The wire of the attempt that runs: what serves it, until it does."""

    start: Callable[[], None] | None = None
    watched = False

    @classmethod
    def watch(cls) -> None:
        """See when this process starts others, from now on."""
        if not cls.watched:
            cls.watched = True
            sys.addaudithook(cls.on_event)

    @classmethod
    def on_event(cls, event: str, _: object) -> None:
        """Serve the wire before a process is started."""
        if event in _STARTS and cls.start is not None:
            start, cls.start = cls.start, None
            start()


@contextmanager
def serve_wire(questions: Any) -> Iterator[None]:
    """Answer the processes that are started inside the block."""
    ours, theirs = socket.socketpair()
    theirs.set_inheritable(True)
    os.environ[_VARIABLE] = str(theirs.fileno())
    serving = threading.Thread(target=_serve, args=(ours, questions), name="wire", daemon=True)
    _Wire.start = serving.start
    _Wire.watch()
    try:
        yield
    finally:
        _Wire.start = None
        os.environ.pop(_VARIABLE, None)
        ours.shutdown(socket.SHUT_RDWR)
        if serving.ident is not None:
            serving.join(_JOIN_SECONDS)
        theirs.close()
        ours.close()


def _serve(sock: socket.socket, questions: Any) -> None:
    bodies: Any = None
    with suppress(EOFError, OSError):
        while True:
            number, body, *_ = msgspec.msgpack.decode(receive_frame(sock))
            bodies = bodies or TypeAdapter(messages.ToSupervisor)
            _answer(sock, questions, number, bodies.validate_python(body))


def _answer(sock: socket.socket, questions: Any, number: int, message: Any) -> None:
    if isinstance(message, messages.ResendLoggingFD):
        sent = messages.SentFDs(fds=[_LOG]).model_dump()
        frame = bytes(messages._ResponseFrame(number, sent).as_bytes())  # noqa: SLF001
        socket.send_fds(sock, [frame], [os.dup(_LOG)])
        return
    try:
        answer = questions.send(message)
    except Exception as error:  # noqa: BLE001 - becomes the answer
        answer = messages.ErrorResponse(detail={"message": str(error)})
    body = None if answer is None else answer.model_dump(by_alias=True)
    sock.sendall(messages._ResponseFrame(number, body).as_bytes())  # noqa: SLF001
