"""Compiles a folder of DAG files into a manifest: what they define, and from what."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.commands.local.settings import check_no_airflow, local_config
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.errors import ConfigError
from pubsubflow.loader.compiled.building import compile_imports, import_folder
from pubsubflow.model.source.compiled import (
    CompiledBundle,
    CompiledFolder,
    read_compiled,
    write_compiled,
)

_SHOWN_CHANGES = 20
_T = TypeVar("_T")
_encode = msgspec.json.Encoder(order="deterministic").encode


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
    _check_outside(output_file, dags)
    settings = local_config(config)
    check_no_airflow(settings)
    found = anyio.run(import_folder, dags, settings.loader)
    files = found.files()
    broken = [file.error for file in files if file.error is not None]
    if broken:
        output.warn(f"nothing was compiled: {_count(len(broken), 'file')} cannot be imported")
        for error in broken:
            output.warn(f"  {error}")
        return 1
    compiled = compile_imports(found, files)
    if check:
        return _compare(read_compiled(output_file), compiled, output_file)
    write_compiled(compiled, output_file)
    dag_count = sum(len(file.dags) for file in compiled.files.values())
    output.show(f"{_count(dag_count, 'DAG')} written to {output_file}")
    for path, file in compiled.files.items():
        if file.repeated:
            output.warn(f"{path} is imported at each start all the same: {file.repeated}")
    return 0


def _check_outside(output_file: Path, dags: Path) -> None:
    """Check that a manifest is not a file of the folder that it is of: it would change it.

    Raises:
        ConfigError: It is.
    """
    folder = (dags if dags.is_dir() else dags.parent).resolve()
    if dags.is_dir() and output_file.resolve().is_relative_to(folder):
        raise ConfigError(
            f"{output_file} lies in {dags}, and would be a file of the folder that it is of: "
            "write it beside the folder"
        )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _compare(written: CompiledFolder, found: CompiledFolder, path: Path) -> int:
    if _encode(written) == _encode(found):
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
    before, now = written.environment, found.environment
    if before.python != now.python:
        yield f"Python {before.python} is {now.python} here"
    for name, old, new in _differing(before.packages, now.packages):
        yield f"{name} {old or 'is missing and'} is {new or 'missing'} here"
    for path, kept, file in _differing(_all_files(written), _all_files(found)):
        yield f"{path} {'is new' if kept is None else 'is gone' if file is None else 'has changed'}"
    for path, one, other in _differing(written.files, found.files):
        if one is None or other is None:
            continue  # its file is new or gone
        dags: Sequence[str] = [dag for dag, _, _ in _differing(one.dags, other.dags)]
        yield f"{path}: {'DAGs ' + ', '.join(dags) if dags else 'what it reads or declares'} differ"


def _all_files(compiled: CompiledFolder) -> dict[str, Any]:
    bundles: Sequence[CompiledBundle] = [*compiled.bundles.values()]
    return {
        f"{bundle.base}/{path}" if bundle.base else path: file
        for bundle in bundles
        for path, file in bundle.files.items()
    }


def _differing(
    before: Mapping[str, _T], now: Mapping[str, _T]
) -> Iterator[tuple[str, _T | None, _T | None]]:
    for name in sorted({*before, *now}):
        one, other = before.get(name), now.get(name)
        # What was read has lists where tuples were written.
        if _encode(one) != _encode(other):
            yield name, one, other
