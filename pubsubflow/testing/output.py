"""What tasks print while they run in this process: kept for the result, and still printed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import msgspec

from pubsubflow.authoring.runtime.inprocess import LogLine
from pubsubflow.runner.output import CURRENT_OUTPUT, TaskOutput, TaskStream

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Capture:
    """Keeps what tasks print, for as long as it is open.

    Attributes:
        alone: The output of the task that has the process to itself, for the threads it starts.
    """

    def __init__(self) -> None:
        self.alone: TaskOutput | None = None
        self.open = True

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand in for `sys.stdout` and `sys.stderr` inside the block."""
        sys.stdout = _Stream(self, "stdout", sys.stdout)
        sys.stderr = _Stream(self, "stderr", sys.stderr)
        try:
            yield
        finally:
            self.open = False
            sys.stdout, sys.stderr = _uncovered(sys.stdout), _uncovered(sys.stderr)

    @contextmanager
    def writing(self, output: TaskOutput, *, alone: bool = False) -> Iterator[None]:
        """Keep in `output` what is printed inside the block.

        Args:
            output: Where to keep it.
            alone: Also what is printed by threads of which nobody knows whose they are.
        """
        token = CURRENT_OUTPUT.set(output)
        if alone:
            self.alone = output
        try:
            yield
        finally:
            CURRENT_OUTPUT.reset(token)
            if alone:
                self.alone = None


def new_output() -> TaskOutput:
    """Return an output that leaves only when it is taken."""
    return TaskOutput(lambda _: None, lambda _: None)


def log_lines(output: TaskOutput, attempt: int) -> Iterator[LogLine]:
    """Yield the lines of an attempt that has ended."""
    for line in filter(None, output.take(last=True).split("\n")):
        record = _decode(line)
        del record["t"]
        yield LogLine(attempt, record.pop("s"), record.pop("m"), record.pop("level", None), record)


class _Stream(TaskStream):
    """Prints to the stream beneath and keeps what tasks print.

    Runs beside each other cover each other's streams: the outermost keeps for all of them.
    """

    def __init__(self, capture: Capture, name: str, beneath: Any) -> None:
        super().__init__(name, beneath)
        self.name = name
        self.capture = capture
        self.beneath = beneath
        self.real: TextIO = beneath.real if isinstance(beneath, _Stream) else beneath

    def write(self, text: str) -> int:
        self.real.write(text)
        output = CURRENT_OUTPUT.get() or self.capture.alone
        if output is not None:
            output.write(self.name, text)
        return len(text)


def _uncovered(stream: Any) -> Any:
    """Return the first stream beneath that is not ours, or is still in use."""
    while isinstance(stream, _Stream) and not stream.capture.open:
        stream = stream.beneath
    return stream
