"""Compiles a folder of DAG files into a manifest: what they define, and from what."""

import ast
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
from cyclopts import Parameter
from msgspec import Struct

from pubsubflow.cli import output
from pubsubflow.cli.commands.local.settings import loader_settings
from pubsubflow.errors import ConfigError, DefinitionError
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.once import load_once
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.model.spec import DagSpec, LoadedFile

FORMAT = 1
_SHOWN_CHANGES = 20
_NAME = re.compile(r"[^a-z0-9]+")


class ImportEnvironment(Struct, frozen=True):
    """What the files were imported with.

    Attributes:
        python: Version of Python, without its last number.
        packages: Distribution → version, of those that the files of the folder import.
    """

    python: str
    packages: dict[str, str]


class CompiledFile(Struct, frozen=True):
    """What one file defines.

    Attributes:
        bundle: Hash of the bundle in which it was imported.
        dags: The DAGs, with their tasks; of variables that a file used, the names alone.
        datasets: URIs of the datasets that it declares.
        hooks: Names of its webhooks.
    """

    bundle: str
    dags: dict[str, Any]
    datasets: list[str]
    hooks: list[str]


class CompiledFolder(Struct, frozen=True):
    """A manifest; two of the same files in the same environment are equal.

    Attributes:
        format: Number of the format.
        environment: What the files were imported with.
        files: Path relative to the folder → what it defines.
    """

    format: int
    environment: ImportEnvironment
    files: dict[str, CompiledFile]


def compile_folder(
    dags: Path,
    /,
    *,
    output_file: Annotated[Path, Parameter(name=("--output", "-o"))],
    check: bool = False,
    config: Path | None = None,
) -> int:
    """Write what a folder of DAG files defines into a manifest, and fail if a file has an error.

    Args:
        dags: A folder of DAG files, or one file.
        output_file: The manifest: JSON, or MessagePack if its name ends with .msgpack.
        check: Only compare with the manifest that is there, and fail if it is not up to date.
        config: Configuration file; ./pubsubflow.toml if left out.
    """
    settings = loader_settings(config)
    found = anyio.run(_compile, dags, settings)
    if check:
        return _compare(_read(output_file), found, output_file)
    try:
        output_file.write_bytes(_encode(found, output_file))
    except OSError as error:
        raise ConfigError(f"{output_file} cannot be written: {error.strerror}") from error
    count = sum(len(file.dags) for file in found.files.values())
    output.show(f"{count} DAG{'s' * (count != 1)} written to {output_file}")
    return 0


async def _compile(folder: Path, settings: LoaderSettings) -> CompiledFolder:
    """Import the files.

    Raises:
        DefinitionError: A file cannot be imported.
    """
    loaded = await load_once(folder, settings=settings)
    broken = [file for file in loaded if file.error]
    if broken:
        more = f" (and {len(broken) - 1} more files)" if len(broken) > 1 else ""
        raise DefinitionError(f"nothing was compiled: {broken[0].error}{more}")
    place = Folder(folder)
    paths = [
        place.root / path
        for path in place.scan(settings.max_bundle_files).files
        if path.endswith(".py")
    ]
    files = {file.file: _compiled(file) for file in loaded}
    return CompiledFolder(FORMAT, _environment(paths), files)


def _compiled(file: LoadedFile) -> CompiledFile:
    return CompiledFile(
        file.bundle,
        {dag.dag_id: _structure(dag) for dag in file.dags},
        sorted(dataset.uri for dataset in file.datasets),
        sorted(hook.name for hook in file.hooks),
    )


def _structure(dag: DagSpec) -> dict[str, Any]:
    # A variable's value is of one installation, and may be what nobody should read in a repository.
    made: dict[str, Any] = msgspec.to_builtins(dag, builtin_types=(bytes,))
    if dag.variables:
        made["variables"] = sorted(dag.variables)
    # Through JSON, so that what is compared has the types of what was written.
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    return decoded


def _environment(paths: Iterable[Path]) -> ImportEnvironment:
    names = {"pubsubflow", *(name for path in paths for name in _imported(path))}
    homes = metadata.packages_distributions()
    packages = {
        _NAME.sub("-", package.lower()): metadata.version(package)
        for name in names
        for package in homes.get(name, ())
    }
    python = ".".join(platform.python_version_tuple()[:2])
    return ImportEnvironment(python, dict(sorted(packages.items())))


def _imported(path: Path) -> Iterator[str]:
    """Yield the names of the top-level modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _encode(compiled: CompiledFolder, path: Path) -> bytes:
    if path.suffix == ".msgpack":
        return msgspec.msgpack.encode(compiled, order="sorted")
    return msgspec.json.format(msgspec.json.encode(compiled, order="sorted"), indent=1) + b"\n"


def _read(path: Path) -> CompiledFolder:
    """Return the manifest of a file.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    decode = msgspec.msgpack.decode if path.suffix == ".msgpack" else msgspec.json.decode
    try:
        found: CompiledFolder = decode(path.read_bytes(), type=CompiledFolder)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): write it first, without --check"
        ) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is not a manifest: write it anew, without --check") from error
    return found


def _compare(written: CompiledFolder, found: CompiledFolder, path: Path) -> int:
    if written == found:
        output.show(f"{path} is up to date")
        return 0
    changes = list(_changes(written, found))
    output.warn(f"{path} is not up to date: compile again and commit it")
    for line in changes[:_SHOWN_CHANGES]:
        output.warn(f"  {line}")
    if len(changes) > _SHOWN_CHANGES:
        output.warn(f"  … and {len(changes) - _SHOWN_CHANGES} more")
    return 1


def _changes(written: CompiledFolder, found: CompiledFolder) -> Iterator[str]:
    """Yield a line for each part that differs."""
    if written.format != found.format:
        yield f"format {written.format} is {found.format} here"
    before, now = written.environment, found.environment
    if before.python != now.python:
        yield f"Python {before.python} is {now.python} here"
    for name, old, new in _differing(before.packages, now.packages):
        yield f"{name} {old or 'is missing and'} is {new or 'missing'} here"
    for file, old, new in _differing(written.files, found.files):
        if old is None or new is None:
            yield f"{file} is {'new' if old is None else 'gone'}"
            continue
        dags: Sequence[str] = [dag for dag, _, _ in _differing(old.dags, new.dags)]
        yield f"{file}: {'DAGs ' + ', '.join(dags) if dags else 'files that it reads'} differ"


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)
