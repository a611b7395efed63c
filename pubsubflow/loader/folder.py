"""The DAGs folder: its Python files, and the DAG files among them."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from pubsubflow.authoring.dag_files import read_source
from pubsubflow.errors import ConfigError

IGNORE_FILE = ".pubsubflowignore"


class FileSignature(NamedTuple):
    """The facts of a file of which one changes when it is written or replaced."""

    modified_ns: int
    size: int
    inode: int


class Folder:
    """A folder of Python files, or a single one in it.

    Args:
        path: The folder, or a single DAG file in it.

    Attributes:
        root: The folder, without symbolic links; the import path of its files.

    Raises:
        ConfigError: The path does not exist.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        if not path.exists():
            raise ConfigError(f"the DAGs folder {path} does not exist; create it or name another")
        self.root = path if path.is_dir() else path.parent
        self._only = None if path.is_dir() else path.name

    def scan(self) -> dict[str, FileSignature]:
        """Return the Python files below the root, relative path → signature.

        Hidden folders, `__pycache__` and virtual environments are left out.

        Raises:
            OSError: The folder cannot be read.
        """
        found: dict[str, FileSignature] = {}
        for entry in _python_files(str(self.root), set()):
            try:
                facts = entry.stat()
            except FileNotFoundError:
                continue
            path = Path(entry.path).relative_to(self.root).as_posix()
            found[path] = FileSignature(facts.st_mtime_ns, facts.st_size, facts.st_ino)
        return found

    def dag_files(self, files: dict[str, FileSignature]) -> list[str]:
        """Return the files to import, sorted: not those that start with `_` or are ignored."""
        if self._only is not None:
            return [self._only] if self._only in files else []
        patterns = self._patterns()
        return sorted(
            file
            for file in files
            if not any(part.startswith("_") for part in file.split("/"))
            and not _ignored(file, patterns)
        )

    def read(self, file: str) -> str | None:
        """Return a file's text, or None when it cannot be read."""
        try:
            return read_source(self.root / file)
        except (OSError, SyntaxError, UnicodeDecodeError):
            return None

    def is_relevant(self, path: str) -> bool:
        """Return whether a change of this path may change a DAG."""
        parts = Path(os.path.relpath(path, self.root)).parts
        if parts[-1] == IGNORE_FILE:
            return True
        if any(part.startswith(".") or part == "__pycache__" for part in parts):
            return False
        # A name without a dot may be a folder that came or went, with Python files in it.
        return parts[-1].endswith(".py") or "." not in parts[-1]

    def _patterns(self) -> list[str]:
        try:
            lines = (self.root / IGNORE_FILE).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        stripped = (line.strip() for line in lines)
        return [line.rstrip("/") for line in stripped if line and not line.startswith("#")]


def _python_files(folder: str, above: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    """Yield the Python files below a folder; `above` guards against links that lead back."""
    facts = os.stat(folder)  # noqa: PTH116 - strings are what scandir gives, a thousand times
    identity = (facts.st_dev, facts.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        listed = list(entries)
    if any(entry.name == "pyvenv.cfg" for entry in listed):
        return
    for entry in listed:
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if entry.is_dir():
            yield from _python_files(entry.path, above | {identity})
        elif entry.name.endswith(".py"):
            yield entry


def _ignored(file: str, patterns: list[str]) -> bool:
    """Return whether a pattern matches the file, a folder it is in, or its bare name."""
    parts = file.split("/")
    paths = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return any(fnmatch(name, pattern) for pattern in patterns for name in (*paths, *parts))
