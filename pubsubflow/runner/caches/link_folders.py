"""Folders of hard links to files by content: made, changed, compared and removed.

Paths are texts here: a folder may have tens of thousands of them.
"""

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pubsubflow.model.source.bundles import BundleFile
from pubsubflow.runner.caches.content_files import is_intact

_NO_LINK = (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP)
_READ_ONLY, _WRITABLE = 0o555, 0o755

Files = Mapping[str, BundleFile]
"""Path in the folder, with `/` → file."""
Locate = Callable[[BundleFile], str]
"""Returns where a file lies by its content."""


def names_that_differ(before: Files, after: Files) -> set[str]:
    """Return the names under which two folders hold something else."""
    names = {name for name, file in before.items() if after.get(name) != file}
    return names | (after.keys() - before.keys())


def change(folder: Path, before: Files, after: Files, locate: Locate) -> None:
    """Make a folder that holds some files into one that holds others; it is read-only then.

    Args:
        folder: It; may be empty.
        before: What it holds.
        after: What it shall hold.
        locate: Says where files lie.

    Raises:
        FileNotFoundError: A file is missing, or was written to.
        OSError: The disk is full, or the folder holds something else.
    """
    root, opened = str(folder), set[str]()
    names = names_that_differ(before, after)
    for name in names & before.keys():
        _open(f"{root}/{name}".rpartition("/")[0], root, opened)
        os.unlink(f"{root}/{name}")  # noqa: PTH108 - texts
    # The deepest first. What is left of a folder would be found by imports and listings.
    for each in sorted(opened - {root}, key=len, reverse=True):
        with os.scandir(each) as entries:
            empty = next(entries, None) is None
        if empty:
            os.rmdir(each)  # noqa: PTH106 - texts
            opened.discard(each)
    for name in (name for name in after if name in names):
        _open(f"{root}/{name}".rpartition("/")[0], root, opened)
        _link(after[name], locate(after[name]), f"{root}/{name}")
    for each in opened:
        Path(each).chmod(_READ_ONLY)


def is_whole(folder: Path, files: Files) -> bool:
    """Return whether a folder holds all files as they were."""
    if not folder.is_dir():
        return False
    path = str(folder)
    return all(is_intact(f"{path}/{name}", file) for name, file in files.items())


def remove_tree(path: Path) -> None:
    """Remove a folder with its files, or a file; read-only folders, too."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(_WRITABLE)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _open(path: str, root: str, opened: set[str]) -> None:
    """Make a folder below the root writable with those above it; make it where it is missing."""
    if path in opened:
        return
    if path != root:
        _open(path.rpartition("/")[0], root, opened)
    try:
        Path(path).chmod(_WRITABLE)
    except FileNotFoundError:
        Path(path).mkdir()
    opened.add(path)


def _link(file: BundleFile, source: str, target: str) -> None:
    """Make a hard link, or a copy where the file system has no more of them."""
    if not is_intact(source, file):
        raise FileNotFoundError(errno.ENOENT, "it is missing or was changed", source)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(source, target)
