"""Shell commands of tasks: their output goes into the log, their last line is the result."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from pubsubflow.errors import PubsubflowError

STOP_SECONDS = 5.0
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
    SIGKILL on this process, ends the command with all that it started.

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
        text=True,
        errors="replace",
    )
    with process, _guarded(process):
        # Two pipes need two readers: a full one would block the command.
        errors = threading.Thread(target=_copy, args=(process.stderr, sys.stderr), daemon=True)
        errors.start()
        last = _copy(process.stdout, sys.stdout)
        errors.join()
        code = process.wait()
    if code:
        raise CommandFailed(code)
    return last


def trace_variables(trace: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that propagate a trace: `TRACEPARENT`, `TRACESTATE`.

    Source: OpenTelemetry, "Environment Variables as Context Propagation Carriers".
    """
    return {name.upper(): value for name, value in trace.items()}


def _copy(source: IO[str] | None, sink: IO[str]) -> str:
    last = ""
    try:
        for line in source or ():
            sink.write(line)
            sink.flush()
            last = line
    except ValueError:
        # An interrupted task closes the pipes while a thread may still read one.
        if source is None or not source.closed:
            raise
    return last.rstrip("\r\n")


@contextmanager
def _guarded(process: "subprocess.Popen[str]") -> Iterator[None]:
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


def _kill_group(process: "subprocess.Popen[str]") -> None:
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
