"""Assets as plain values; what refers to one by its name is the asset that the file defines."""

from collections.abc import Iterator
from typing import Any

import msgspec

from pubsubflow.airflow.structure import AssetStructure, DagStructure


def asset_of(asset: Any) -> AssetStructure | None:
    """Return an asset, or what stands for one; None for anything else."""
    kind = type(asset).__name__.removeprefix("Serialized")
    if kind == "AssetAlias":
        return AssetStructure(asset.name, kind="alias")
    if kind == "AssetNameRef":
        return AssetStructure(asset.name, kind="name")
    if kind == "AssetUriRef":
        return AssetStructure(asset.uri, asset.uri, kind="uri")
    if hasattr(asset, "uri") and hasattr(asset, "name"):
        return AssetStructure(asset.name, asset.uri)
    return None


def with_names_resolved(dags: list[DagStructure]) -> tuple[DagStructure, ...]:
    """Return DAGs in which a reference by name is the asset that one of them names.

    Airflow looks into its database, which knows those of all files: a DAG with another reference
    has a note.
    """
    uris = {
        asset.name: asset.uri
        for dag in dags
        for asset in _assets(dag)
        if asset.kind == "asset" and asset.name != asset.uri
    }
    return tuple(_resolved(dag, uris) for dag in dags)


def _assets(dag: DagStructure) -> Iterator[AssetStructure]:
    for task in dag.tasks:
        yield from (*task.outlets, *task.inlets)
    yield from (msgspec.convert(each, AssetStructure) for each in _scheduled(dag.schedule))


def _scheduled(part: Any) -> Iterator[dict[str, Any]]:
    """Yield each asset of a schedule as it stands there, to be changed in place."""
    if isinstance(part, list):
        for each in part:
            yield from _scheduled(each)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "asset":
                yield value
            else:
                yield from _scheduled(value)


def _resolved(dag: DagStructure, uris: dict[str, str]) -> DagStructure:
    lacking: dict[str, None] = {}

    def found(asset: AssetStructure) -> AssetStructure:
        if asset.kind != "name":
            return asset
        if asset.name in uris:
            return AssetStructure(asset.name, uris[asset.name])
        lacking[asset.name] = None
        return asset

    tasks = tuple(
        msgspec.structs.replace(
            task, outlets=tuple(map(found, task.outlets)), inlets=tuple(map(found, task.inlets))
        )
        for task in dag.tasks
    )
    for each in _scheduled(dag.schedule):
        each.update(msgspec.structs.asdict(found(msgspec.convert(each, AssetStructure))))
    notes = dag.notes + tuple(
        f"asset {name!r} is referred to by its name, which this file does not define: it is the "
        f"dataset airflow://{name}"
        for name in lacking
    )
    return msgspec.structs.replace(dag, tasks=tasks, notes=notes)
