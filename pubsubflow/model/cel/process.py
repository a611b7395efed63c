"""A process of its own evaluates CEL expressions that may take long.

The interpreter cannot be interrupted, and `map()` over a list of n elements takes n² steps, nested
ones n⁴: an event of 60 KiB could occupy a daemon for hours. The process ends itself when its time
or its memory is used up, whatever becomes of the daemon; the next expression starts a new one.
"""

import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, cast

import msgspec
from msgspec import Struct

SECONDS = 0.5
"""How long one evaluation may take."""

_REFUSED_SECONDS = 60.0  # an expression that took too long is not tried again for so long
_START_SECONDS = 10.0
_MEMORY_BYTES = 512 * 2**20
_OURS = "PUBSUBFLOW"
_NO_ACCOUNT = 65_519  # no account has it, and no task's is it
_LENGTH = struct.Struct("!I")


class ExpressionLimitError(ValueError):
    """An expression takes more time or memory than one may."""


_ERRORS = {
    error.__name__: error
    for error in (KeyError, IndexError, TypeError, RuntimeError, ZeroDivisionError, OverflowError)
}


class _Reply(Struct, array_like=True):
    """A value, or kind and message of an error."""

    value: Any = None
    kind: str | None = None
    message: str = ""


class ExpressionProcess:
    """Evaluates expressions one at a time; its process is started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._refused: dict[str, float] = {}  # text → time.monotonic() until which it is refused

    def evaluate(self, text: str, variables: Mapping[str, Any]) -> Any:
        """Return the value of an expression, with what JSON does not have as text.

        Raises:
            ExpressionLimitError: It takes longer than `SECONDS`, or did less than a minute ago.
            KeyError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError: It fails, or
                a variable cannot be encoded.
        """
        request = msgspec.msgpack.encode((text, variables))
        with self._lock:
            now = time.monotonic()
            if self._refused.get(text, now) > now:
                raise _too_expensive()
            answer = self._exchange(request)
            if answer is None:
                self._refused = {one: until for one, until in self._refused.items() if until > now}
                self._refused[text] = time.monotonic() + _REFUSED_SECONDS
                raise _too_expensive()
        reply = msgspec.msgpack.decode(answer, type=_Reply)
        if reply.kind is not None:
            raise _ERRORS.get(reply.kind, ValueError)(reply.message)
        return reply.value

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _exchange(self, request: bytes) -> bytes | None:
        """Return the reply; None when the process has ended instead."""
        process = self._running()
        # Both are pipes: _running() asks for them.
        pipe_in = cast("BinaryIO", process.stdin)
        pipe_out = cast("BinaryIO", process.stdout)
        try:
            _write(pipe_in, request)
            # The process ends itself in time, unless it is stopped or cannot start.
            ready, _, _ = select.select([pipe_out], [], [], _START_SECONDS)
            answer = _read(pipe_out) if ready else None
        except BrokenPipeError:
            answer = None
        if answer is None:
            self._end()
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            try:
                self._process = _start()
            except OSError as error:
                reason = f"no process can be started for it now ({error.strerror})"
                raise RuntimeError(reason) from error
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:
                pass


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the interpreter's last words when memory is used up
        start_new_session=True,  # Ctrl-C in a terminal is for the daemon
        # Expressions are a stranger's: their process has none of the daemon's secrets.
        env={name: text for name, text in os.environ.items() if not name.startswith(_OURS)},
    )


def _too_expensive() -> ExpressionLimitError:
    return ExpressionLimitError(
        f"it takes more than {SECONDS:g} s or {_MEMORY_BYTES >> 20} MiB; nest fewer of map, "
        "filter, all and exists, or use them on shorter lists"
    )


def _write(pipe: BinaryIO, data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _read(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data: bytes = pipe.read(length)
    return data if len(data) == length else None


def _serve() -> None:
    import cel  # noqa: PLC0415 - the daemon's side of this module does not need it

    if os.geteuid() == 0:
        # Nothing is opened from here on, so it may be anyone.
        with suppress(OSError):  # such as in a container whose user ids end before
            os.setgroups([])
            os.setgid(_NO_ACCOUNT)
            os.setuid(_NO_ACCOUNT)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    pipe_in, pipe_out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the interpreter prints must not end up in a reply
    while (request := _read(pipe_in)) is not None:
        # Nothing handles SIGALRM: it ends the process, also within the interpreter's own code.
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        reply = _evaluate(cel, request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(pipe_out, reply)


def _evaluate(cel: Any, request: bytes) -> bytes:
    text, variables = msgspec.msgpack.decode(request)
    try:
        reply = _Reply(cel.compile(text).execute(variables))
        return msgspec.msgpack.encode(reply, enc_hook=str)
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon's side reports it
        reply = _Reply(kind=type(error).__name__, message=str(error).split("\n", 1)[0][:500])
        return msgspec.msgpack.encode(reply)


if __name__ == "__main__":
    _serve()
