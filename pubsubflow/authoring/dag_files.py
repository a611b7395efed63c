"""DAG files are executed from the folder of a bundle, for the DAGs they define."""

import hashlib
import importlib.util
import linecache
import os
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType
from typing import Any, cast

import pubsubflow
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.registry import LoadedDefinitions, loading

# DAG files use these names, and they are imported lazily: do it once, before processes fork.
for _name in pubsubflow.__all__:
    getattr(pubsubflow, _name)


_READERS = {"airflow": "pubsubflow.airflow.outside.dag_files"}
"""Kind of a bundle → the module that reads its files."""


class BundleFolder:
    """The folder of the one bundle whose code this process runs.

    Its files are imported and opened as if they lay in the DAGs folder: `__file__` and `sys.path`
    name this folder, where everything beside a DAG file is found; code objects, and so tracebacks,
    name the DAGs folder.

    Args:
        folder: Where the bundle's files are.
        root: Where they come from; what users see in errors.
        kind: Of the bundle, if its files are not Python for this interpreter; see `Manifest`.
    """

    _present: "BundleFolder | None" = None

    def __init__(self, folder: str, root: str, kind: str = "") -> None:
        self.folder = folder
        self.root = root
        self.kind = kind

    @classmethod
    def enter(cls, folder: str, root: str, kind: str = "") -> "BundleFolder":
        """Make a folder the one of this process; once it is entered, the same one again only.

        Raises:
            RuntimeError: The process runs the code of another bundle.
        """
        present = BundleFolder._present
        if present is None:
            present = BundleFolder._present = cls(folder, root, kind)
            if not kind:
                present._find_modules()
        if present.folder != folder:
            raise RuntimeError(f"this process runs the code of {present.folder}, not of {folder}")
        return present

    def _find_modules(self) -> None:
        """Have this process find the modules of the folder."""
        sys.dont_write_bytecode = True
        sys.path_hooks.insert(0, self.finder)
        sys.path.insert(0, self.folder)
        sys.path_importer_cache.clear()

    def execute(self, file: str, into: LoadedDefinitions | None = None) -> LoadedDefinitions:
        """Execute a DAG file and return all that it defines.

        Args:
            file: Its path in the bundle.
            into: Takes what it defines, and knows the variables that it may use.

        Raises:
            DefinitionError: A DAG in it is invalid.
            Exception: The file raises it.
        """
        path = str(Path(self.folder, file))
        name = _module_name(file)
        with loading(str(Path(self.root, file)), into) as collected:
            if self.kind:
                reader = importlib.import_module(_READERS[self.kind.partition(":")[0]])
                reader.read_file(self.kind, self.folder, self.root, file, collected)
                return collected
            loader = _Loader(name, path, self)
            spec = importlib.util.spec_from_file_location(name, path, loader=loader)
            if spec is None:
                raise ImportError(f"cannot import {path}")
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            loader.exec_module(module)
        return collected

    def dags(
        self, file: str, variables: Mapping[str, tuple[Any, ...]] | None = None
    ) -> dict[str, DAG]:
        """Execute a DAG file and return the DAGs it makes, by id; see `execute`."""
        return self.execute(file, LoadedDefinitions(file, variables)).dags

    def finder(self, path: str) -> FileFinder:
        """Return the finder of modules in a part of this folder.

        Raises:
            ImportError: The path is not a part of it; see `sys.path_hooks`.
        """
        # A path that was written with the DAGs folder in it means what the bundle holds.
        found = self.inside(path)
        if found is None or not Path(self.folder, found).is_dir():
            raise ImportError(path)
        loaders = (ExtensionFileLoader, EXTENSION_SUFFIXES), (_loader_of(self), [".py"])
        # A loader is made by a call; that it is one of a class, as typed, makes no difference.
        return FileFinder(str(Path(self.folder, found)), *cast("Any", loaders))

    def inside(self, path: str) -> str | None:
        """Return a path relative to the bundle; None for one that is in neither of its folders."""
        path = os.path.abspath(path)  # noqa: PTH100 - without following links
        for folder in (self.folder, self.root):
            if path == folder:
                return ""
            if path.startswith(f"{folder}{os.sep}"):
                return path[len(folder) + 1 :].replace(os.sep, "/")
        return None

    def users(self, path: str) -> str:
        """Return the path that users know a file of the bundle by."""
        return self.root + path[len(self.folder) :] if path.startswith(self.folder) else path


def users_text(text: str) -> str:
    """Return a text with the paths that users know in place of those of the bundle's folder."""
    present = BundleFolder._present  # noqa: SLF001 - the one of this process
    return text if present is None else text.replace(present.folder, present.root)


class _Loader(SourceFileLoader):
    """Loads a module of a bundle, with tracebacks that name the DAGs folder."""

    def __init__(self, fullname: str, path: str, bundle: BundleFolder) -> None:
        super().__init__(fullname, path)
        self._bundle = bundle

    def get_code(self, fullname: str) -> CodeType:
        # Bundles have no compiled files to look for, and get none.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(  # type: ignore[override]
        self,
        data: Any,
        path: Any,
        *,
        _optimize: int = -1,
    ) -> CodeType:
        name = self._bundle.users(str(path))
        if isinstance(data, bytes):
            text = importlib.util.decode_source(data)
            # Without a time of change linecache keeps the entry, although what lies in the DAGs
            # folder may differ by now, or may not be on this machine.
            lines = text.splitlines(keepends=True)
            linecache.cache[name] = (len(text), None, lines, name)
        return super().source_to_code(data, name, _optimize=_optimize)


def _loader_of(bundle: BundleFolder) -> Callable[[str, str], _Loader]:
    return lambda fullname, path: _Loader(fullname, path, bundle)


def _module_name(file: str) -> str:
    """Return a module name that does not clash with those of other modules."""
    return f"pubsubflow_dag_{hashlib.sha256(file.encode()).hexdigest()[:8]}_{Path(file).stem}"
