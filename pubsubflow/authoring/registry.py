"""The registry of the DAGs, datasets and webhooks that one file defines while it loads.

It lives as long as the file loads: a registry of the process would mix versions of a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pubsubflow.authoring.source_location import SourceLocation, definition_error


class LoadedDefinitions:
    """The DAGs, datasets and webhooks that one file made while it loaded.

    Attributes:
        file: Path of the file.
        dags: DAG id → DAG, in the order they were made.
        datasets: The datasets, in the order they were made.
        hooks: Name → webhook, in the order they were made.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.dags: dict[str, Any] = {}
        self.datasets: list[Any] = []
        self.hooks: dict[str, Any] = {}


_LOADING: ContextVar[LoadedDefinitions | None] = ContextVar("pubsubflow_loading", default=None)


@contextmanager
def loading(file: str) -> Iterator[LoadedDefinitions]:
    """Collect the definitions made inside the block."""
    collected = LoadedDefinitions(file)
    token = _LOADING.set(collected)
    try:
        yield collected
    finally:
        _LOADING.reset(token)


def collect_dag(dag_id: str, dag: object, location: SourceLocation | None) -> None:
    """Record a DAG for the file that loads, if one does.

    Raises:
        DefinitionError: The file already made a DAG by that id.
    """
    collected = _LOADING.get()
    if collected is None:
        return
    first = collected.dags.get(dag_id)
    if first is not None:
        where = f" at {first.location.file}:{first.location.line}" if first.location else ""
        raise definition_error(
            f"there is a DAG by this id already{where}; give one of them another dag_id",
            location=location,
            dag_id=dag_id,
        )
    collected.dags[dag_id] = dag


def collect_dataset(dataset: object) -> None:
    """Record a dataset for the file that loads, if one does."""
    collected = _LOADING.get()
    if collected is not None:
        collected.datasets.append(dataset)


def collect_hook(name: str, hook: object, location: SourceLocation | None) -> None:
    """Record a webhook for the file that loads, if one does.

    Raises:
        DefinitionError: The file already made a webhook by that name.
    """
    collected = _LOADING.get()
    if collected is None:
        return
    first = collected.hooks.get(name)
    if first is not None:
        where = f" at {first.location.file}:{first.location.line}" if first.location else ""
        raise definition_error(
            f"there is a webhook named {name!r} already{where}; give one of them another name",
            location=location,
        )
    collected.hooks[name] = hook
