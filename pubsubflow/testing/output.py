"""Output of tasks in this process: captured for the result, and still printed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import msgspec

from pubsubflow.authoring.runtime.inprocess import LogLine
from pubsubflow.runner.output import CURRENT_OUTPUT, TaskOutput, TaskStream

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Capture:
    """Captures the output of tasks, for as long as it is open.

    Attributes:
        alone: The output of the task that has the process to itself, for the threads it starts.
    """

    def __init__(self) -> None:
        self.alone: TaskOutput | None = None
        self.open = True

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace `sys.stdout` and `sys.stderr` inside the block."""
        sys.stdout = _Stream(self, "stdout", sys.stdout)
        sys.stderr = _Stream(self, "stderr", sys.stderr)
        try:
            yield
        finally:
            self.open = False
            sys.stdout, sys.stderr = _uncovered(sys.stdout), _uncovered(sys.stderr)

    @contextmanager
    def writing(self, output: TaskOutput, *, alone: bool = False) -> Iterator[None]:
        """Capture the output of the block in `output`.

        Args:
            output: The captured output.
            alone: Capture the output of unknown threads as well.
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
    """Return an output that is kept until it is taken."""
    return TaskOutput(lambda _: None, lambda _: None)


def log_lines(output: TaskOutput, attempt: int) -> Iterator[LogLine]:
    """Yield the lines of an attempt that has ended."""
    for line in filter(None, output.take(last=True).split("\n")):
        record = _decode(line)
        del record["t"]
        yield LogLine(attempt, record.pop("s"), record.pop("m"), record.pop("level", None), record)


class _Stream(TaskStream):
    """Writes to the stream beneath and captures the output of tasks.

    Concurrent runs wrap each other's streams: the outermost captures for all of them.
    """

    def __init__(self, capture: Capture, name: str, beneath: Any) -> None:
        super().__init__(name, beneath)
        self.name = name
        self.capture = capture
        self.beneath = beneath
        # Written to the innermost stream: other captures in between would print it once more.
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
