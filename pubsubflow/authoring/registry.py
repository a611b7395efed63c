"""The registry of the DAGs, datasets and webhooks that one file defines while it loads.

It lives as long as the file loads: a registry of the process would mix versions of a file.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from pubsubflow.authoring.source_location import SourceLocation, definition_error
from pubsubflow.model.values.variables import ENVIRONMENT, environment_name, parse_value

Variables = Mapping[str, tuple[Any, ...]]
_REQUIRED: Final[Any] = object()


class LoadedDefinitions:
    """The DAGs, datasets and webhooks that one file made while it loaded.

    Attributes:
        file: Path of the file.
        dags: DAG id → DAG, in the order they were made.
        datasets: The datasets, in the order they were made.
        hooks: Name → webhook, in the order they were made.
        variables: The variables that are known here: name → its value, in a tuple that is empty
            for one that is not set.
        secrets: Names of those that are secret.
        used: The variables that the file has used; likewise.
        wanted: Names of those that it has used and that are not known.
    """

    def __init__(
        self, file: str, variables: Variables | None = None, secrets: Collection[str] = ()
    ) -> None:
        self.file = file
        self.variables = variables or {}
        self.secrets = secrets
        self.used: dict[str, tuple[Any, ...]] = {}
        self.wanted: dict[str, None] = {}
        self.dags: dict[str, Any] = {}
        self.datasets: list[Any] = []
        self.hooks: dict[str, Any] = {}


_LOADING: ContextVar[LoadedDefinitions | None] = ContextVar("pubsubflow_loading", default=None)


@contextmanager
def loading(file: str, into: LoadedDefinitions | None = None) -> Iterator[LoadedDefinitions]:
    """Collect the definitions made inside the block.

    Args:
        file: Path of the file.
        into: Takes them.
    """
    collected = LoadedDefinitions(file) if into is None else into
    token = _LOADING.set(collected)
    try:
        yield collected
    finally:
        _LOADING.reset(token)


def variable(name: str, default: Any = _REQUIRED) -> Any:
    """Return the value of a variable while a DAG file loads, for what the graph depends on.

    A change of the variable loads the file anew. Its runs keep the value of their version: so in a
    task, take `ctx.variable`, which is the value of the moment. Without a daemon, as in tests and
    `dags check`, only the environment counts: `PUBSUBFLOW_VAR_NAME`.

    Args:
        name: Its name.
        default: Returned when it is not set.

    Raises:
        DefinitionError: It has neither a value nor a default, or it is secret.
    """
    collected = _LOADING.get()
    if collected is None:
        text = os.environ.get(environment_name(ENVIRONMENT, name))
        known: tuple[Any, ...] | None = () if text is None else (parse_value(text),)
    else:
        known = collected.variables.get(name)
        if known is None:
            collected.wanted[name] = None
        else:
            collected.used[name] = known
        if name in collected.secrets:
            raise definition_error(
                f"variable {name!r} is secret, and a version of a DAG is not: read it in a task, "
                "by ctx.variable"
            )
    if known:
        return known[0]
    if default is _REQUIRED:
        raise definition_error(
            f"variable {name!r} is not set; set it with `pubsubflow variables set {name}`, or give "
            "a default"
        )
    return default


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
        kind, keyword = ("check", "name") if ":" in dag_id else ("DAG", "dag_id")
        raise definition_error(
            f"there is a {kind} by this {keyword.removeprefix('dag_')} already{where}; "
            f"give one of them another {keyword}",
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
