"""The log file of a server: rotated by size, and quoted when the server does not start."""

import errno
import os
import shutil
from pathlib import Path

from pubsubflow.errors import ConfigError
from pubsubflow.exit_codes import describe_exit

MAX_BYTES = 8_000_000
"""Size at which a log is rotated; one older file is kept."""

_ERROR_MARKS = ("PANIC:", "FATAL:", "[FTL]", "ERROR:", "error:", "[ERR]", "panic:")
FULL_DISK = "no space left on device"
"""What servers log, in any case of letters, when a write finds the disk full."""

_MIN_FREE_BYTES = 1 << 16
_MAX_QUOTE = 300


class ServerLog:
    """A log file that a server writes through an inherited descriptor.

    Args:
        path: The file; the older one has the suffix ``.1``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = self._read = 0

    def open(self) -> int:
        """Open the log for a server that is about to start; the caller closes the descriptor."""
        self.rotate()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._start = self._read = os.fstat(descriptor).st_size
        return descriptor

    def rotate(self) -> None:
        """Rotate the log if it is too large; lines written in between are lost."""
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            # Copied and truncated, not renamed: the server keeps its descriptor of the file.
            shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
            os.truncate(self.path, 0)
            self._start = self._read = 0

    def contains(self, text: str) -> bool:
        """Return whether the server that started last wrote a text."""
        return text in self._text()

    def contains_new(self, text: str) -> bool:
        """Return whether the server wrote a text in small letters since the last call."""
        if not self.path.exists():
            return False
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                found = file.read()
        except OSError:  # no file can be opened just now: it is read the next time
            return False
        self._read += len(found)
        return text in found.decode(errors="replace").lower()

    def start_error(self, program: str, code: int) -> Exception:
        """Return the error for a program that exited early, with its last log line.

        Args:
            program: Its name.
            code: Its exit code.

        Returns:
            An `OSError` if the disk is full, which the home translates; else a `ConfigError`.
        """
        if FULL_DISK in self._text().lower() or self._is_disk_full():
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return ConfigError(
            f"{program} did not start ({describe_exit(code)}): {self._last_error()} "
            f"(see {self.path})"
        )

    def _is_disk_full(self) -> bool:
        """Return whether the disk is so full that the server could not even log it."""
        return shutil.disk_usage(self.path.parent).free < _MIN_FREE_BYTES

    def _last_error(self) -> str:
        lines = [line.strip() for line in self._text().splitlines() if line.strip()]
        errors = [line for line in lines if any(mark in line for mark in _ERROR_MARKS)]
        return (errors or lines or ["it logged nothing"])[-1][-_MAX_QUOTE:]

    def _text(self) -> str:
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")
