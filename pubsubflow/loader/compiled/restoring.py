"""Imports out of a manifest, as if they had been made here."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from pubsubflow.loader.compiled.variables import digest_of_variable
from pubsubflow.loader.evidence import Evidence
from pubsubflow.loader.importer import ReadVariables, known_values
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.records import ImportRecord
from pubsubflow.model.source.bundles import Manifest, contents, contents_hash
from pubsubflow.model.source.compiled import CompiledBundle, CompiledFile, CompiledFolder
from pubsubflow.model.spec import LoadedFile
from pubsubflow.model.values.variables import Variable


async def compiled_imports(
    compiled: CompiledFolder, key: str, read_variables: ReadVariables
) -> dict[str, ImportRecord]:
    """Return file → import, of those files that need not be imported here.

    Args:
        compiled: The manifest; its folder and environment are those of here.
        key: See `ImportRecord.surroundings`.
        read_variables: Reads the variables that files used: a file is imported if one has another
            value here.

    Raises:
        Unavailable: The variables cannot be read.
    """
    names = sorted({name for file in compiled.files.values() for name in file.variables})
    variables = dict(await read_variables(names)) if names else {}
    found = {}
    for path, file in compiled.files.items():
        values = known_values(variables, file.variables)
        if not file.repeated and _agree(file, values, variables):
            imported = _imported(path, file, compiled.bundles[file.bundle], values)
            found[path] = ImportRecord(key, *imported)
    return found


def _agree(
    file: CompiledFile, values: Mapping[str, tuple[Any, ...]], variables: Mapping[str, Variable]
) -> bool:
    """Return whether the variables that a file used are what they were."""
    # A secret one looks unset, but is not: code that uses it fails, or waits for a task.
    return not any(
        digest != digest_of_variable(name, values[name])
        or (name in variables and variables[name].secret)
        for name, digest in file.variables.items()
    )


def _imported(
    path: str, file: CompiledFile, bundle: CompiledBundle, values: dict[str, tuple[Any, ...]]
) -> tuple[ImportResult, dict[str, str]]:
    """Return an import, and what stood under the names that it read."""
    found = contents(Manifest("", bundle.base, bundle.files), file.reads)
    source = contents_hash(found)
    loaded = LoadedFile(
        path,
        bundle=file.bundle,
        dags=tuple(replace(dag, source=source, variables=values) for dag in file.dags.values()),
        datasets=tuple(file.datasets.values()),
        hooks=tuple(hook for hook in file.hooks.values() if hook is not None),
        warnings=file.warnings,
        source=source,
    )
    # What may be another elsewhere is looked at when the daemon is ready; see `verify_uncertain`.
    evidence = Evidence.of_bundle(file.uncertain)
    return ImportResult(loaded, file.reads, variables=values, evidence=evidence), found
