"""Executes DAG files, from a folder or from a bundle that travelled, and tells what they define."""

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
from pubsubflow.authoring.loading.registry import Collected, loading
from pubsubflow.model.spec import SourceBundle

for _name in pubsubflow.__all__:
    getattr(pubsubflow, _name)  # the files ask for them: here once, before processes are forked


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
    """Execute exactly the bundle's text and return the DAGs it makes, by id.

    The modules beside the file come from the bundle too, whatever the DAGs folder holds now or
    whether there is one; modules that are not in the bundle are looked for in the folder.

    Raises:
        DefinitionError: A DAG in it cannot be.
        Exception: Whatever the file raises.
    """
    return execute(bundle).dags


def execute(bundle: SourceBundle) -> Collected:
    """Execute a bundle and return all that it defines; see `import_dag_file`."""
    _forget_other_versions(bundle)
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


def modules_below(root: str, before: set[str]) -> dict[str, str]:
    """Return the sources of modules imported since, relative path → text, if they lie below root.

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
    """Return a name that no import statement means by accident."""
    return f"pubsubflow_dag_{hashlib.sha256(file.encode()).hexdigest()[:8]}_{Path(file).stem}"


class _TextLoader(ExecutionLoader):
    """Loads a module from a text that need not be on disk, with tracebacks that show it."""

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
        linecache.cache[self.path] = (len(self.text), None, lines, self.path)
        super().exec_module(module)


class _BundleFinder(MetaPathFinder):
    """Finds the modules of a bundle, as if its files stood in the DAGs folder."""

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
        place = fullname.replace(".", "/")
        for file in (f"{place}/__init__.py", f"{place}.py"):
            text = self._bundle.files.get(file)
            if text is not None and file != self._bundle.file:
                where = str(Path(self._bundle.root, file))
                loader = _TextLoader(where, text)
                return importlib.util.spec_from_file_location(fullname, where, loader=loader)
        if place in self._folders and f"{place}.py" != self._bundle.file:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(Path(self._bundle.root, place))]
            return spec
        return None


def _forget_other_versions(bundle: SourceBundle) -> None:
    """Let modules that were imported with another content be imported anew."""
    for file, text in bundle.files.items():
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        loader = getattr(sys.modules.get(name), "__loader__", None)
        if isinstance(loader, _TextLoader) and loader.text != text:
            del sys.modules[name]
