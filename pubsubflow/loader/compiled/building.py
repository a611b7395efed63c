"""Building of manifests: a folder is imported once, and what its files define is written down."""

from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from pubsubflow.loader.compiled.environment import import_environment
from pubsubflow.loader.compiled.variables import digest_of_variable
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.once import ImportedFolder, Progress, import_once
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.model.schedule.conditions import Tick, map_ticks, ticks
from pubsubflow.model.schedule.timetable import TableSpec
from pubsubflow.model.source.compiled import (
    FORMAT,
    CompiledBundle,
    CompiledFile,
    CompiledFolder,
)
from pubsubflow.model.spec import DagSpec, LoadedFile
from pubsubflow.model.webhooks import WebhookSpec

_TICKS = "it has timetables of its own, whose moments are computed at an import"
_SECRET = "a webhook of it has its secret as text: write Secret(NAME)"  # noqa: S105


async def import_folder(
    folder: Path, settings: LoaderSettings, on_progress: Progress | None = None
) -> ImportedFolder:
    """Import the files of a folder so that what is known of each depends on no other.

    Raises:
        ConfigError: The folder does not exist.
    """
    # In a process of its own each: what one has read would count for those after it.
    alone = replace(settings, files_a_process=1)
    return await import_once(folder, settings=alone, on_progress=on_progress)


def compile_imports(found: ImportedFolder, files: list[LoadedFile]) -> CompiledFolder:
    """Return the manifest of a folder whose files have all been imported without an error.

    Args:
        found: The folder.
        files: What its files define, each DAG with the file that it is of.
    """
    bundles = found.snapshot.bundles.values()
    paths = [
        Path(bundle.manifest.root, path)
        for bundle in bundles
        for path in bundle.manifest.files
        if path.endswith(".py")
    ]
    return CompiledFolder(
        FORMAT,
        import_environment(paths),
        {each.hash: CompiledBundle(each.manifest.base, each.manifest.files) for each in bundles},
        {file.file: _compiled(file, found.imports[file.file]) for file in files},
    )


def _compiled(file: LoadedFile, imported: ImportResult) -> CompiledFile:
    hooks = {hook.name: _without_secret(hook) for hook in file.hooks}
    repeated = _SECRET if None in hooks.values() else ""
    if any(_has_own_ticks(dag) for dag in file.dags):
        repeated = _TICKS
    return CompiledFile(
        file.bundle,
        {dag.dag_id: _without_moments(dag) for dag in file.dags},
        {dataset.uri: dataset for dataset in file.datasets},
        hooks,
        imported.reads,
        {name: digest_of_variable(name, value) for name, value in imported.variables.items()},
        tuple(_uncertain(imported)),
        repeated,
        imported.loaded.warnings,
    )


def _uncertain(imported: ImportResult) -> Iterator[str]:
    """Yield what decided an import that may be another elsewhere."""
    evidence = imported.evidence
    if evidence is None:
        return
    yield from evidence.uncertain
    # Values may be secrets, and times and paths are those of this machine.
    yield from (f"environment {name}" for name in evidence.names)
    if evidence.outside:
        yield "reads files outside of the folder"


def _without_secret(hook: WebhookSpec) -> WebhookSpec | None:
    return None if any(isinstance(each, str) for each in hook.verify.secrets()) else hook


def _without_moments(dag: DagSpec) -> DagSpec:
    """Return a DAG without what is of one installation, or of one moment."""
    # A variable's value may be what nobody should read in a repository.
    dag = replace(dag, variables={})
    if dag.schedule is None or not _has_own_ticks(dag):
        return dag
    condition = map_ticks(dag.schedule.condition, _without_ticks)
    return replace(dag, schedule=replace(dag.schedule, condition=condition))


def _has_own_ticks(dag: DagSpec) -> bool:
    schedule = dag.schedule
    return schedule is not None and any(
        isinstance(each.timetable, TableSpec) for each in ticks(schedule.condition)
    )


def _without_ticks(part: Tick) -> Tick:
    if isinstance(part.timetable, TableSpec):
        return replace(part, timetable=TableSpec(part.timetable.name))
    return part
