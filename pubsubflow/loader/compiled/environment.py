"""The environment of imports as manifests name it: Python, and the distributions that files use."""

import ast
import platform
import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from pubsubflow.model.source.compiled import ImportEnvironment

_NAME = re.compile(r"[^a-z0-9]+")


def python_version() -> str:
    """Return the version of Python, without its last number."""
    return ".".join(platform.python_version_tuple()[:2])


def package_version(name: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def import_environment(paths: Iterable[Path]) -> ImportEnvironment:
    """Return what the Python files of some paths are imported with.

    Raises:
        SyntaxError: One of them is not Python.
    """
    names = {"pubsubflow", *(name for path in paths for name in _imported(path))}
    homes = metadata.packages_distributions()
    packages = {
        _NAME.sub("-", package.lower()): metadata.version(package)
        for name in names
        for package in homes.get(name, ())
    }
    return ImportEnvironment(python_version(), dict(sorted(packages.items())))


def _imported(path: Path) -> Iterator[str]:
    """Yield the names of the top-level modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
