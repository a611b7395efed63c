"""The team's own modules: compiled here, so that their old imports can be replaced."""

import ast
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

from pubsubflow.airflow.inside.legacy.rewrite import rewrite
from pubsubflow.airflow.inside.legacy.scan import scan
from pubsubflow.airflow.inside.loading.notes import NoteBook
from pubsubflow.airflow.inside.loading.owners import Owners


class TeamLoader(importlib.abc.InspectLoader):
    """Loads one of the team's modules; packages and resources are left to the loader it wraps.

    Args:
        inner: The loader that finds the source: of a file, or of an archive.
        file: The path of the source.
        notes: Gets a note for each old use.
        owners: Gets the DAGs that the module makes.
        legacy: Whether old names are replaced.
    """

    def __init__(
        self, inner: Any, file: str, notes: NoteBook, owners: Owners, *, legacy: bool
    ) -> None:
        self._inner = inner
        self._file = file
        self._notes = notes
        self._owners = owners
        self._legacy = legacy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def is_package(self, fullname: str) -> bool:
        """Whether a module is a package."""
        return bool(self._inner.is_package(fullname))

    def get_source(self, fullname: str) -> str | None:
        """Return the source as it is written."""
        source: str | None = self._inner.get_source(fullname)
        return source

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of a module, its old imports replaced."""
        source = self.get_source(fullname)
        if source is None:
            # Of a module that is there compiled alone.
            code: CodeType | None = self._inner.get_code(fullname)
            return code
        tree = ast.parse(source, self._file)
        scan(tree, self._file, self._notes)
        if self._legacy:
            tree = rewrite(tree, self._file, self._notes)
        return compile(tree, self._file, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code."""
        code = self.get_code(module.__name__)
        if code is not None:
            with self._owners.importing(module):
                exec(code, vars(module))  # noqa: S102 - what a loader is for


class TeamFinder(importlib.abc.MetaPathFinder):
    """Finds modules below the team's folders, and no others.

    Args:
        notes: Says which files are the team's, and gets a note for each old use.
        owners: Gets the DAGs that modules make.
        legacy: Whether old names are replaced.
    """

    def __init__(self, notes: NoteBook, owners: Owners, *, legacy: bool) -> None:
        self._notes = notes
        self._owners = owners
        self._legacy = legacy

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of one of the team's modules, else None."""
        # Where Python would find it: packages without __init__ and archives, too.
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        file = spec and spec.origin
        if spec is None or not file or not file.endswith(".py") or not self._notes.is_own(file):
            return None
        spec.loader = TeamLoader(spec.loader, file, self._notes, self._owners, legacy=self._legacy)
        return spec

    def install(self) -> None:
        """Be the first finder of this process."""
        sys.meta_path.insert(0, self)
