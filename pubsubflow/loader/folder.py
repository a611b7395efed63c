"""The DAGs folder: its files, the bundles they belong to, and the DAG files among them."""

import os
import stat
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from pubsubflow.errors import ConfigError
from pubsubflow.loader.ignore import IgnorePattern, is_ignored, read_patterns
from pubsubflow.model.source.bundles import IGNORE_FILE, MARKER

_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"
_CACHES = ("__pycache__", "node_modules")
# Kubernetes replaces this link when it replaces the files of a volume.
_SWAPPED = "..data"
_COMPILED = (".pyc", ".pyo")
_ARCHIVE = ".zip"
_AIRFLOW_IGNORE = ".airflowignore"


class FileSignature(NamedTuple):
    """The facts of a file of which one changes when it is written or replaced."""

    modified_ns: int
    size: int
    inode: int
    mode: int


class FolderPlace(NamedTuple):
    """A folder with its links followed; another one when the folder was replaced.

    Attributes:
        others: Likewise its folders that lie elsewhere.
    """

    path: str
    device: int
    inode: int
    others: tuple["FolderPlace", ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths."""
        return self.path, *(each.path for each in self.others)


class FolderScan:
    """What a scan found; all paths are relative to the DAGs folder, with `/`.

    Attributes:
        files: Path → signature.
        bases: Folders that are bundles of their own; the DAGs folder itself is the empty one.
        skipped: Path → why it is left out.
        unreadable: Those of them that were not meant to be left out.
        cut: Whether the scan stopped at the largest number of files.
    """

    def __init__(self) -> None:
        self.files: dict[str, FileSignature] = {}
        self.bases: set[str] = {""}
        self.skipped: dict[str, str] = {}
        self.unreadable: set[str] = set()
        self.cut = False

    def refuse(self, path: str, reason: str) -> None:
        """Leave out what cannot be read."""
        self.skipped[path] = reason
        self.unreadable.add(path)

    def base_of(self, path: str) -> str:
        """Return the bundle that a file belongs to: the innermost one."""
        if len(self.bases) == 1:
            return ""
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in self.bases:
                return folder
        return ""


class Folder:
    """A folder of files, or a single DAG file in it.

    The path is followed anew at each scan: it may be a link that is moved to another checkout.

    Args:
        path: The folder, or a single DAG file in it.
        kinds: Folders in it that are bundles of their own → their kind; see `Manifest`. It may
            change between two scans.
        elsewhere: Those of them that lie elsewhere → where; their files are named as if they lay
            in the folder.

    Attributes:
        root: The folder as it was named, absolute; links in it are kept.
        kinds: Likewise.

    Raises:
        ConfigError: The path does not exist, or a folder elsewhere has the name of one in it.
    """

    def __init__(
        self,
        path: Path,
        kinds: Mapping[str, str] | None = None,
        elsewhere: Mapping[str, Path] | None = None,
    ) -> None:
        self.kinds = {} if kinds is None else kinds
        path = Path(os.path.abspath(path))  # noqa: PTH100 - without following links
        if not path.exists():
            raise ConfigError(f"the DAGs folder {path} does not exist; create it or name another")
        self.root = path if path.is_dir() else path.parent
        self._only = None if path.is_dir() else path.name
        self._elsewhere = elsewhere or {}
        for name, folder in self._elsewhere.items():
            if (self.root / name).exists():
                raise ConfigError(
                    f"the folder {folder} cannot be known as {name}: {self.root} has that as well; "
                    "give its bundle another name"
                )

    @property
    def is_single_file(self) -> bool:
        """Whether one file of the folder is the only DAG file."""
        return self._only is not None

    def place(self) -> FolderPlace | None:
        """Return where the folder is now; None while it is missing."""
        place = _place(self.root)
        if place is None or not self._elsewhere:
            return place
        others = (_place(each) for each in self._elsewhere.values())
        return place._replace(others=tuple(each for each in others if each is not None))

    def home_of(self, file: str) -> tuple[Path, str]:
        """Return the folder in which a file lies, and its path in it."""
        for name, folder in self._elsewhere.items():
            if file == name or file.startswith(f"{name}/"):
                return folder, file[len(name) + 1 :]
        return self.root, file

    def path_of(self, file: str) -> Path:
        """Return where a file lies."""
        return Path(*self.home_of(file))

    def scan(self, max_files: int) -> FolderScan:
        """Return the files below the root.

        Hidden files and folders, caches and virtual environments are left out, and what the ignore
        files match.

        Args:
            max_files: At one file more the scan stops.

        Raises:
            OSError: The folder cannot be read.
        """
        scan = FolderScan()
        root = os.path.realpath(self.root)
        # An empty folder in place of one that is gone would retire all DAGs: this raises.
        os.stat(root)  # noqa: PTH116 - strings are what scandir gives, a thousand times
        scan.bases.update(self.kinds)
        _walk(root, "", (), scan, _Limits(max_files, frozenset()))
        for name, folder in self._elsewhere.items():
            if not scan.cut:
                _add_elsewhere(name, folder, scan, max_files)
        if self._only is not None and self._only not in scan.files and scan.cut:
            facts = (self.root / self._only).stat()
            scan.files[self._only] = _signature(facts)
        return scan

    def dag_files(self, scan: FolderScan) -> list[str]:
        """Return the files to import, sorted: not those that start with `_`."""
        if self._only is not None:
            return [self._only] if self._only in scan.files else []
        return sorted(
            file
            for file in scan.files
            if file.endswith((".py", _ARCHIVE)) and self._may_define(file, scan)
        )

    def _may_define(self, file: str, scan: FolderScan) -> bool:
        if self.kinds.get(scan.base_of(file)):
            return True
        return file.endswith(".py") and "/_" not in f"/{file}"

    def is_relevant(self, path: str) -> bool:
        """Return whether a change of this path, with links followed, may change a bundle."""
        roots = (os.path.realpath(each) for each in (*self._elsewhere.values(), self.root))
        root = next((each for each in roots if path == each or path.startswith(f"{each}/")), "/")
        parts = Path(os.path.relpath(path, root)).parts
        # The folder itself has no part in itself; it was touched, or it is not there any more.
        if not parts or parts[-1] in (IGNORE_FILE, _AIRFLOW_IGNORE, MARKER, _SWAPPED):
            return True
        return not any(_is_hidden(part) for part in parts)


def _place(folder: Path) -> FolderPlace | None:
    try:
        path = os.path.realpath(folder, strict=True)
        facts = os.stat(path)  # noqa: PTH116 - the identity of a folder
    except OSError:
        return None
    return FolderPlace(path, facts.st_dev, facts.st_ino)


def _add_elsewhere(name: str, folder: Path, scan: FolderScan, max_files: int) -> None:
    """Add the files of a folder that lies elsewhere, below its name.

    Raises:
        OSError: It cannot be read: an empty one in its place would retire all its DAGs.
    """
    found = FolderScan()
    _walk(os.path.realpath(folder), "", (), found, _Limits(max_files, frozenset()))
    scan.files.update((f"{name}/{file}", facts) for file, facts in found.files.items())
    scan.bases.update(f"{name}/{base}" for base in found.bases if base)
    scan.skipped.update((f"{name}/{file}", reason) for file, reason in found.skipped.items())
    scan.unreadable.update(f"{name}/{file}" for file in found.unreadable)
    scan.cut = found.cut or len(scan.files) > max_files


class _Limits(NamedTuple):
    """How many files there may be, and the folders above, by which a link that leads back shows."""

    max_files: int
    above: frozenset[tuple[int, int]]


def _walk(
    root: str, folder: str, ignored: Sequence[IgnorePattern], scan: FolderScan, limits: _Limits
) -> None:
    """Add the files below a folder of the root to the scan."""
    path = f"{root}/{folder}" if folder else root
    try:
        facts = os.stat(path)  # noqa: PTH116 - as above
        with os.scandir(path) as entries:
            listed = sorted(entries, key=attrgetter("name"))
    except OSError as error:
        if not folder:
            raise
        scan.refuse(folder, error.strerror or str(error))
        return
    identity = (facts.st_dev, facts.st_ino)
    names = {entry.name for entry in listed}
    if identity in limits.above or _VIRTUAL_ENVIRONMENT in names:
        return
    if folder and MARKER in names:
        scan.bases.add(folder)
        ignored = ()
    for name in (IGNORE_FILE, _AIRFLOW_IGNORE):
        if name in names:
            ignored = (*ignored, *_patterns(path, folder, scan, name))
    limits = limits._replace(above=limits.above | {identity})
    for entry in listed:
        if scan.cut:
            return
        if not _is_hidden(entry.name):
            _visit(root, folder, entry, ignored, scan, limits)


def _visit(
    root: str,
    folder: str,
    entry: os.DirEntry[str],
    ignored: Sequence[IgnorePattern],
    scan: FolderScan,
    limits: _Limits,
) -> None:
    file = f"{folder}/{entry.name}" if folder else entry.name
    try:
        file.encode()
        facts = entry.stat()
    except UnicodeEncodeError:
        readable = os.fsencode(file).decode(errors="backslashreplace")
        scan.refuse(readable, "its name is not UTF-8")
        return
    except OSError as error:
        # A link to nothing is not worth a word; one that leads to itself, or the unreadable, is.
        if not isinstance(error, FileNotFoundError):
            scan.refuse(file, error.strerror or str(error))
        return
    is_folder = stat.S_ISDIR(facts.st_mode)
    if is_ignored(file, ignored, folder=is_folder):
        scan.skipped[file] = f"{IGNORE_FILE} names it"
    elif is_folder:
        _walk(root, file, ignored, scan, limits)
    elif not stat.S_ISREG(facts.st_mode):
        scan.refuse(file, "it is not a regular file")
    elif not entry.name.endswith(_COMPILED):
        if len(scan.files) >= limits.max_files:
            scan.cut = True
            return
        scan.files[file] = _signature(facts)


def _signature(facts: os.stat_result) -> FileSignature:
    return FileSignature(facts.st_mtime_ns, facts.st_size, facts.st_ino, facts.st_mode)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _CACHES


def _patterns(path: str, folder: str, scan: FolderScan, file: str) -> list[IgnorePattern]:
    """Return the patterns of a folder's ignore file, for paths relative to the root."""
    name = f"{folder}/{file}" if folder else file
    try:
        text = Path(path, file).read_text("utf-8", errors="replace")
    except OSError as error:
        scan.refuse(name, error.strerror or str(error))
        return []
    return read_patterns(text, folder)
