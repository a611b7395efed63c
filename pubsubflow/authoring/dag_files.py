"""DAG files are executed, from a folder or a source bundle, for the DAGs they define."""

import hashlib
import importlib.util
import linecache
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pubsubflow
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.registry import LoadedDefinitions, loading
from pubsubflow.model.spec import SourceBundle

# DAG files use these names, and they are imported lazily: do it once, before processes fork.
for _name in pubsubflow.__all__:
    getattr(pubsubflow, _name)


def make_bundle(root: str, file: str, files: Mapping[str, str]) -> SourceBundle:
    """Return a bundle with its content hash."""
    digest = hashlib.sha256()
    for path in sorted(files):
        for part in (path, files[path]):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
    return SourceBundle(hash=digest.hexdigest(), file=file, root=root, files=dict(files))


def read_source(path: Path) -> str:
    """Return a Python file's text, decoded as Python does.

    Raises:
        OSError: It cannot be read.
        SyntaxError: Its encoding is unknown.
        UnicodeDecodeError: It is not in its encoding.
    """
    return importlib.util.decode_source(path.read_bytes())


def import_dag_file(bundle: SourceBundle) -> dict[str, DAG]:
    """Execute exactly the bundle's source and return the DAGs it makes, by id.

    The modules beside the file come from the bundle too, whatever the DAGs folder holds now, if it
    exists at all; modules that are not in the bundle are imported from the folder.

    Raises:
        DefinitionError: A DAG in it is invalid.
        Exception: The file raises it.
    """
    return execute_bundle(bundle).dags


def execute_bundle(bundle: SourceBundle) -> LoadedDefinitions:
    """Execute a bundle and return all that it defines; see `import_dag_file`."""
    _forget_other_versions(bundle)
    # The finder of an older version of this file would win otherwise.
    sys.meta_path[:] = [
        finder
        for finder in sys.meta_path
        if not (isinstance(finder, _BundleFinder) and finder.serves(bundle.file))
    ]
    sys.meta_path.insert(0, _BundleFinder(bundle))
    if bundle.root not in sys.path:
        sys.path.insert(0, bundle.root)
    path = str(Path(bundle.root, bundle.file))
    with loading(path) as collected:
        _run(_module_name(bundle.file), path, bundle.files[bundle.file])
    return collected


def imported_modules(root: str, before: set[str]) -> dict[str, str]:
    """Return the sources of modules imported since, relative path → text, if they are below root.

    Args:
        root: The DAGs folder, without symbolic links.
        before: Names in `sys.modules` earlier.
    """
    found: dict[str, str] = {}
    for name in [name for name in sys.modules if name not in before]:
        file = getattr(sys.modules[name], "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = Path(file).resolve()
        if not path.is_relative_to(root):
            continue
        relative = path.relative_to(root)
        if not any(part.startswith(".") or part == "site-packages" for part in relative.parts):
            found[relative.as_posix()] = read_source(path)
    return found


def _run(name: str, path: str, text: str) -> None:
    loader = _TextLoader(path, text)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)


def _module_name(file: str) -> str:
    """Return a module name that does not clash with those of other modules."""
    return f"pubsubflow_dag_{hashlib.sha256(file.encode()).hexdigest()[:8]}_{Path(file).stem}"


class _TextLoader(ExecutionLoader):
    """Loads a module from source text, which need not be on disk, with readable tracebacks."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002 - the protocol of loaders
        return self.path

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - the protocol of loaders
        return self.text

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002 - the protocol of loaders
        return self.path.endswith("__init__.py")

    def exec_module(self, module: ModuleType) -> None:
        lines = self.text.splitlines(keepends=True)
        # Without a time of change linecache keeps the entry, although the file on disk may differ.
        linecache.cache[self.path] = (len(self.text), None, lines, self.path)
        super().exec_module(module)


class _BundleFinder(MetaPathFinder):
    """Finds the modules of a bundle, as if its files were in the DAGs folder."""

    def __init__(self, bundle: SourceBundle) -> None:
        self._bundle = bundle
        self._folders = {
            parent.as_posix() for path in bundle.files for parent in Path(path).parents
        }

    def serves(self, file: str) -> bool:
        return self._bundle.file == file

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol of finders
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        relative = fullname.replace(".", "/")
        for file in (f"{relative}/__init__.py", f"{relative}.py"):
            text = self._bundle.files.get(file)
            if text is not None and file != self._bundle.file:
                location = str(Path(self._bundle.root, file))
                loader = _TextLoader(location, text)
                return importlib.util.spec_from_file_location(fullname, location, loader=loader)
        if relative in self._folders and f"{relative}.py" != self._bundle.file:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(Path(self._bundle.root, relative))]
            return spec
        return None


def _forget_other_versions(bundle: SourceBundle) -> None:
    """Drop modules that were imported with another content, so that they are imported anew."""
    for file, text in bundle.files.items():
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        loader = getattr(sys.modules.get(name), "__loader__", None)
        # Modules of the same text stay, with their state: several DAG files may share them.
        if isinstance(loader, _TextLoader) and loader.text != text:
            del sys.modules[name]
