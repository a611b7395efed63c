"""Output of a process for attempts: its streams and Airflow's log lines go down one pipe."""

import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from airflow.sdk.log import configure_logging

_STANDARD = (1, 2)
# What the task runner says of itself in each attempt: it is the page's to show. Each line that is
# dropped first, before its secrets are masked, saves a fifth of a millisecond.
_NOISE = ("::group::", "::endgroup::", "Pushing xcom", "Done. Returned value was")


class Output:
    """The streams and the log lines of this process; each attempt has its own pipe for them.

    Logging is configured once, as that costs more than most attempts: what changes is what the
    file descriptors stand for.
    """

    def __init__(self) -> None:
        self._lines = os.dup(1)
        self._streams = _by_lines(1), _by_lines(2)
        # Masked here: the secrets of connections that are used are known in this process.
        lines = os.fdopen(self._lines, "wb", 0)
        configure_logging(json_output=True, output=lines, sending_to_supervisor=False)
        # In place: loggers that are in use have the list.
        structlog.get_config()["processors"].insert(0, _drop_noise)

    def use(self, descriptor: int) -> None:
        """Send all output to a file descriptor, which is closed."""
        self._flush()
        sys.stdout, sys.stderr = self._streams
        for standard in _STANDARD:
            os.dup2(descriptor, standard)
        os.dup2(descriptor, self._lines, inheritable=False)
        os.close(descriptor)

    def leave(self) -> None:
        """Write what is left, and drop all that comes later: the reader finds the end."""
        self._flush()
        self.use(os.open(os.devnull, os.O_WRONLY))

    @contextmanager
    def dropped(self) -> Iterator[None]:
        """Drop what is written inside the block."""
        kept = [(each, os.dup(each)) for each in (*_STANDARD, self._lines)]
        self.leave()
        try:
            yield
        finally:
            self._flush()
            for each, copy in kept:
                os.dup2(copy, each, inheritable=each in _STANDARD)
                os.close(copy)

    def _flush(self) -> None:
        for stream in {sys.stdout, sys.stderr, *self._streams}:
            if stream is not None and not stream.closed:
                stream.flush()


def _drop_noise(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if str(event.get("event")).startswith(_NOISE):
        raise structlog.DropEvent
    return event


def _by_lines(standard: int) -> TextIO:
    return open(standard, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
