"""The notes of a file that is being loaded, and the places in the team's files they belong to."""

import sys
from collections.abc import Iterable
from pathlib import Path

from pubsubflow.airflow.findings import Note, NoteKind

_INSTALLED = ("site-packages", "dist-packages")


class NoteBook:
    """Collects notes, each place and use once.

    Args:
        folders: The team's folders: that of the DAG files, plugins, config.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = tuple(f"{Path(each).absolute()}/" for each in folders)
        self._notes: dict[tuple[str, int, str], Note] = {}

    def add(self, file: str, line: int, use: str, today: str, kind: NoteKind = "legacy") -> None:
        """Add a note, unless there is one of that use at that place."""
        self._notes.setdefault((file, line, use), Note(file, line, use, today, kind))

    def add_here(self, use: str, today: str, kind: NoteKind = "legacy") -> None:
        """Add a note at the line of the team's that is being run."""
        frame = sys._getframe(1)  # noqa: SLF001 - as `warnings` finds the caller
        while frame.f_back is not None and not self.is_own(frame.f_code.co_filename):
            frame = frame.f_back
        if self.is_own(frame.f_code.co_filename):
            self.add(frame.f_code.co_filename, frame.f_lineno, use, today, kind)

    def is_own(self, file: str) -> bool:
        """Whether a file is the team's: below one of its folders, and not installed there."""
        return file.startswith(self._folders) and not any(each in file for each in _INSTALLED)

    def notes(self) -> list[Note]:
        """Return all notes in the order of their places."""
        return sorted(self._notes.values())
