"""The recorder of reads: what an import reads of its bundle, seen by an audit hook."""

import os
import sys
from typing import Any, Self

from pubsubflow.authoring.dag_files import BundleFolder
from pubsubflow.model.lazy_import import attributes_so_far

_LISTS = ("os.listdir", "os.scandir")
_IMPORT_SYSTEM = "<frozen importlib"


class ReadRecorder:
    """Records the files of a bundle that this process opens, and the folders it lists.

    Args:
        folder: The bundle's.
    """

    def __init__(self, folder: BundleFolder) -> None:
        self._folder = folder
        self._reads: set[str] = set()
        self._modules: set[str] = set()
        self._before = dict(sys.modules)

    @classmethod
    def start(cls, folder: BundleFolder) -> Self:
        """Record from now on, for the life of the process: a hook cannot be removed."""
        recorder = cls(folder)
        sys.addaudithook(recorder.observe)
        return recorder

    def forget(self) -> None:
        """Forget what was read so far: another file is imported next."""
        self._reads.clear()
        self._modules.clear()

    def observe(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event."""
        if event == "open":
            self._add(arguments[0], "")
        elif event == "import":
            self._modules.add(arguments[0])
        elif event in _LISTS:
            caller = sys._getframe(1).f_code.co_filename  # noqa: SLF001 - there is no other way
            # The import system lists the folders in which it looks for modules: what it found, or
            # did not find, counts, rather than all the names beside it.
            if not caller.startswith(_IMPORT_SYSTEM):
                self._add("." if arguments[0] is None else arguments[0], "/")

    def reads(self) -> tuple[str, ...]:
        """Return what was read, also what was looked for and is not there."""
        loaded = list(sys.modules.items())
        for module in [each for name, each in loaded if self._before.get(name) is not each]:
            # Not getattr(): each import would load all that this process may ever need.
            file = attributes_so_far(module).get("__file__")
            if isinstance(file, str):
                self._add(file, "")
        for name in self._modules - sys.modules.keys():
            path = name.replace(".", "/")
            for entry in sys.path:
                place = self._folder.inside(entry) if isinstance(entry, str) else None
                if place is not None:
                    start = f"{place}/" if place else ""
                    self._reads.update((f"{start}{path}.py", f"{start}{path}/__init__.py"))
        return tuple(sorted(self._reads))

    def _add(self, path: object, end: str) -> None:
        if isinstance(path, os.PathLike):
            path = os.fspath(path)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str):
            return
        inside = self._folder.inside(path)
        if inside is not None and (inside or end):
            self._reads.add(f"{inside}{end}")
