"""Compiled folders: what the DAG files of a folder define, and from what, in a manifest."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from pubsubflow.errors import ConfigError, DefinitionError
from pubsubflow.model.source.bundles import BundleFile
from pubsubflow.model.spec import DagSpec, DatasetSpec
from pubsubflow.model.webhooks import WebhookSpec

FORMAT = 2
MOST_BYTES = 512 << 20
_AGAIN = "compile the folder again: `pubsubflow compile DAGS -o {}`"

_Bundle = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class ImportEnvironment(Struct, frozen=True):
    """What the files were imported with.

    Attributes:
        python: Version of Python, without its last number.
        packages: Distribution → version, of those that the files of the folder import.
    """

    python: str
    packages: dict[str, str]


class CompiledBundle(Struct, frozen=True):
    """A bundle: its folder, relative to the DAGs folder, and its files by their paths in it."""

    base: str
    files: dict[str, BundleFile]


class CompiledFile(Struct, frozen=True, omit_defaults=True):
    """What one file defines.

    Attributes:
        bundle: Hash of the bundle in which it was imported.
        dags: The DAGs, without the values of variables and the moments of timetables of one's own.
        datasets: The datasets that it declares, by URI.
        hooks: Its webhooks, by name; None for one that has a secret in its text.
        reads: What the import read of its bundle; see `ImportResult`.
        variables: The variables that it used → a digest of the value, empty for one that is not
            set.
        uncertain: What decided the import that may be another elsewhere; see `Evidence`.
        repeated: Why every start imports it all the same; empty if it does not.
        warnings: See `LoadedFile`.
    """

    bundle: _Bundle
    dags: dict[str, DagSpec]
    datasets: dict[str, DatasetSpec]
    hooks: dict[str, WebhookSpec | None]
    reads: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    uncertain: tuple[str, ...] = ()
    repeated: str = ""
    warnings: tuple[str, ...] = ()


class CompiledFolder(Struct, frozen=True):
    """A manifest; two of the same files in the same environment are equal.

    Attributes:
        format: Number of the format.
        environment: What the files were imported with.
        bundles: The bundles of the folder, by hash.
        files: Path relative to the folder → what it defines.
    """

    format: int
    environment: ImportEnvironment
    bundles: dict[_Bundle, CompiledBundle]
    files: dict[str, CompiledFile]


class _Format(Struct, frozen=True):
    """The part of a manifest that every format has."""

    format: int


def write_compiled(compiled: CompiledFolder, path: Path) -> None:
    """Write a manifest: JSON, or MessagePack if the name ends with `.msgpack`.

    Raises:
        ConfigError: It cannot be written.
    """
    if _is_packed(path):
        data = msgspec.msgpack.encode(compiled, order="deterministic")
    else:
        data = msgspec.json.encode(compiled, order="deterministic")
        data = msgspec.json.format(data, indent=1) + b"\n"
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def read_compiled(path: Path) -> CompiledFolder:
    """Return the manifest of a file; nothing in it is executed.

    Raises:
        ConfigError: It cannot be read, or is none, or is of another format.
    """
    again = _AGAIN.format(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > MOST_BYTES else file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"manifest {path} cannot be read ({error.strerror}): name another, or {again}"
        ) from error
    if max(size, len(data)) > MOST_BYTES:
        raise ConfigError(f"manifest {path} has more than {MOST_BYTES:,} bytes: it is none")
    decode = msgspec.msgpack.decode if _is_packed(path) else msgspec.json.decode
    try:
        number = decode(data, type=_Format).format
        if number != FORMAT:
            raise ConfigError(
                f"manifest {path} has format {number}, and this version reads {FORMAT}: {again}"
            )
        return decode(data, type=CompiledFolder)
    except (msgspec.DecodeError, DefinitionError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a manifest ({error}): {again}") from error


def _is_packed(path: Path) -> bool:
    return path.suffix == ".msgpack"
