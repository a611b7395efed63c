"""Assets of Airflow are datasets: of the same URI where they have one, else by their name."""

from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote

from pubsubflow.airflow.structure import AssetStructure, DagStructure
from pubsubflow.authoring.datasets import uri_of
from pubsubflow.errors import DefinitionError


def dataset_uri(asset: AssetStructure) -> str:
    """Return the URI of an asset's dataset, normalised.

    Airflow takes any text as a URI, with white space, templates or an underscore in the scheme.
    What is none here is quoted, as a name is.
    """
    if asset.kind == "alias":
        return uri_of(f"airflow-alias://{quote(asset.name, safe='')}")
    text = asset.uri or asset.name
    if "://" in text:
        with suppress(DefinitionError):
            return uri_of(text)
    return uri_of(f"airflow://{quote(text, safe='')}")


def known_assets(dag: DagStructure) -> dict[str, AssetStructure]:
    """Return dataset URI → the asset that a DAG names, in its schedule or its tasks."""
    found: dict[str, AssetStructure] = {}
    listed = [*_scheduled(dag.schedule or {})]
    listed += [each for task in dag.tasks for each in (*task.inlets, *task.outlets)]
    for asset in listed:
        found.setdefault(dataset_uri(asset), asset)
    return found


def _scheduled(part: dict[str, object]) -> Iterator[AssetStructure]:
    asset = part.get("asset")
    if isinstance(asset, dict):
        yield AssetStructure(**asset)
    for key in ("any", "all"):
        sides = part.get(key)
        for side in sides if isinstance(sides, list) else ():
            yield from _scheduled(side)
    inner = part.get("partitioned")
    if isinstance(inner, dict):
        yield from _scheduled(inner)
