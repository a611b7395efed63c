"""Shell commands of tasks: their output goes into the log, their last line is the result."""

import codecs
import contextlib
import io
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from pubsubflow.errors import PubsubflowError

STOP_SECONDS = 5.0
_DRAIN_SECONDS = 0.5
"""How long output is read after the command's end, while something else holds its pipes."""
_CHUNK_BYTES = 65_536
_GUARD = 'read _ || kill -s KILL -- "-$0"'


class CommandFailed(PubsubflowError):  # noqa: N818 - the command's end, not our mistake
    """The command ended with a code other than 0.

    Args:
        code: Its exit code; negative for a signal.
    """

    def __init__(self, code: int) -> None:
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        super().__init__(f"the command ended with {how}; its output is in the log")
        self.code = code


def run_bash(
    command: str,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    *,
    inherit: bool = True,
) -> str:
    """Run a command with bash and return the last line it printed.

    Both outputs are passed on line by line as they come. Whatever ends the call early, even
    SIGKILL on this process, ends the command with all that it started; so does its end what it
    leaves in the background.

    Args:
        command: What `bash -c` runs.
        env: Variables added to those of this process.
        cwd: Folder to run it in.
        inherit: Whether it has the variables of this process at all.

    Raises:
        CommandFailed: Its exit code is not 0.
    """
    process = subprocess.Popen(
        ["bash", "-c", command],  # noqa: S607 - bash stands where the user's PATH says
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**(os.environ if inherit else {}), **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )
    with process, _guarded(process):
        last = _pass_on(process)
        code = process.wait()
    if code:
        raise CommandFailed(code)
    return last


def _pass_on(process: "subprocess.Popen[bytes]") -> str:
    """Pass the output on until the command has ended; return the last line of its stdout.

    What still holds the pipes then, in the background, is killed, and not waited for.
    """
    printed = _Lines(sys.stdout)
    streams = {process.stdout: printed, process.stderr: _Lines(sys.stderr)}
    with selectors.DefaultSelector() as selector, _ending_of(process) as ended:
        selector.register(ended, selectors.EVENT_READ)
        for source, lines in streams.items():
            if source is not None:
                selector.register(source, selectors.EVENT_READ, lines)
        deadline: float | None = None
        while len(selector.get_map()) > (deadline is None):
            patience = None if deadline is None else deadline - time.monotonic()
            ready = selector.select(patience)
            if deadline is not None and time.monotonic() >= deadline:
                break
            for key, _ in ready:
                if key.data is None:
                    selector.unregister(ended)
                    # What the command has printed is in the pipes.
                    _kill_rest(process)
                    deadline = time.monotonic() + _DRAIN_SECONDS
                elif not key.data.feed(os.read(key.fd, _CHUNK_BYTES)):
                    selector.unregister(key.fileobj)
    for lines in streams.values():
        lines.finish()
    return printed.last


def trace_variables(trace: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that propagate a trace: `TRACEPARENT`, `TRACESTATE`.

    Source: OpenTelemetry, "Environment Variables as Context Propagation Carriers".
    """
    return {name.upper(): value for name, value in trace.items()}


class _Lines:
    """Passes output on to a stream, line by line.

    Args:
        sink: The stream.

    Attributes:
        last: The last line.
    """

    def __init__(self, sink: TextIO) -> None:
        self._sink = sink
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._rest = ""
        self.last = ""

    def feed(self, data: bytes) -> bool:
        """Add what was read; return whether there may be more."""
        self._write(self._decoder.decode(data), end=False)
        return bool(data)

    def finish(self) -> None:
        """Pass on what is left."""
        self._write(self._decoder.decode(b"", final=True), end=True)

    def _write(self, text: str, *, end: bool) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self.last = lines[-1]
        whole = "".join(f"{line}\n" for line in lines)
        if end and self._rest:
            self.last, whole, self._rest = self._rest, whole + self._rest, ""
        if whole:
            self._sink.write(whole)
            self._sink.flush()


@contextmanager
def _ending_of(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Give a file descriptor that can be read once the process has ended."""
    reader, writer = os.pipe()

    def wait() -> None:
        process.wait()
        os.close(writer)

    # Not joined: where the block is left early, the process is killed later, by the guard.
    threading.Thread(target=wait, name="bash-end", daemon=True).start()
    try:
        yield reader
    finally:
        os.close(reader)


@contextmanager
def _guarded(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Kill the process group when the block is left early, or when this process dies in it."""
    # The guard is a shell that waits for a line. SIGKILL gives us no chance to clean up, but it
    # closes the pipe: the guard reads the end of file and kills the group.
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(process.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    except BaseException:
        _kill_group(process)
        raise
    finally:
        guard.communicate(b"\n")


def _kill_rest(process: "subprocess.Popen[bytes]") -> None:
    """Kill what a command that has ended has left in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Terminate the group, and kill it when it does not end in time."""
    for sign, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
