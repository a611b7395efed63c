"""Options of DAGs: the keywords of `DAG(…)`, checked one by one where they are written."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, cast

import msgspec
from msgspec import Struct

from pubsubflow.authoring.alerts.callbacks import callbacks
from pubsubflow.authoring.alerts.deadlines import Deadline, deadlines
from pubsubflow.authoring.retention import Retention, retention_spec
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.tasks.airflow_words import DAG_DEFAULTS, HARMLESS, TASK_WORDS
from pubsubflow.authoring.tasks.executors import executor_spec
from pubsubflow.authoring.tasks.limits import MAX_PRIORITY
from pubsubflow.authoring.tasks.options import check_defaults
from pubsubflow.authoring.validation import (
    Seconds,
    flag,
    optional,
    positive_seconds,
    text,
    whole,
)
from pubsubflow.executors import ExecutorOptions
from pubsubflow.model.json_values import json_fault

_EVENT_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class DagKeywords(TypedDict, total=False):
    """The keywords of `DAG(…)` and `@dag(…)` besides the id."""

    schedule: Any
    start: datetime | None
    end: datetime | None
    catchup: bool
    params: Mapping[str, Any] | type[Struct] | None
    params_from: Mapping[str, str] | None
    subscribe_from: str | datetime | DatasetEvent
    default_args: Mapping[str, Any] | None
    max_active_runs: int
    max_active_tasks: int | None
    priority: int
    timeout: Seconds | None
    tags: Iterable[str]
    owner: str | None
    description: str | None
    on_success: Callable[..., object] | Sequence[Callable[..., object]] | None
    on_failure: Callable[..., object] | Sequence[Callable[..., object]] | None
    on_pause: str
    deadlines: Iterable[Deadline] | Deadline | None
    dag: None
    retention: timedelta | Retention | None
    result: str | None
    presets: Mapping[str, Mapping[str, Any]] | None
    executor: str | ExecutorOptions | None


def with_default_args(options: DagKeywords) -> tuple[DagKeywords, list[str]]:
    """Return the keywords with those of `default_args` that are the DAG's, not its tasks'.

    Args:
        options: As the user wrote them; what stands beside `default_args` counts more.

    Returns:
        The keywords, and a line for each word of `default_args` that has no meaning here.
    """
    defaults = options.get("default_args")
    if not isinstance(defaults, Mapping):
        return options, []
    of_tasks = dict(defaults)
    found: dict[str, Any] = {}
    hints = []
    for word in [each for each in of_tasks if each in DAG_DEFAULTS or each in HARMLESS]:
        value = of_tasks.pop(word)
        if word in DAG_DEFAULTS:
            found[DAG_DEFAULTS[word]] = value
        elif value:
            hints.append(f"default_args: {word}= has no meaning here; write {TASK_WORDS[word]}")
    return cast("DagKeywords", found | options | {"default_args": of_tasks}), hints


def _when(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError("must be a datetime")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError("must be a list of strings")
    return tuple(map(text, sorted(value) if isinstance(value, set | frozenset) else value))


def _origin(value: object) -> str:
    """Return the position from which a subscription takes events."""
    # An event stands for its id: the position follows from its number in the log.
    if isinstance(value, DatasetEvent):
        value = value.event_id
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat()
    if value in ("now", "earliest"):
        return str(value)
    if isinstance(value, str):
        found = re.fullmatch(_EVENT_ID, value.lower())
        if found is not None:
            return found[0]
    raise ValueError("must be 'now', 'earliest', the id of an event, or a datetime")


def _on_pause(value: object) -> str:
    if value not in ("hold", "drop"):
        raise ValueError("must be 'hold' or 'drop'")
    return str(value)


def _presets(value: object) -> dict[str, dict[str, Any]]:
    """Return sets of params by name, as JSON values."""
    if not isinstance(value, Mapping):
        raise TypeError("must be a mapping: name → params")
    for name, params in value.items():
        if not (isinstance(name, str) and re.fullmatch(r"[\w.-]{1,64}", name)):
            raise ValueError(f"name a preset by letters, digits, _, - and ., not {name!r}")
        if not isinstance(params, Mapping):
            raise TypeError(f"{name!r} must be a mapping: param → value")
    plain: dict[str, dict[str, Any]] = msgspec.to_builtins(value, str_keys=True)
    fault = json_fault(plain, "presets")
    if fault is not None:
        raise ValueError(fault)
    return plain


def _no_parent(value: object) -> None:
    if value is not None:
        raise ValueError("stands inside of another; connect two DAGs through a dataset")


DAG_CHECKS: dict[str, Callable[[object], Any]] = {
    "schedule": lambda value: value,
    "start": optional(_when),
    "end": optional(_when),
    "catchup": flag,
    "params": lambda value: value,
    "params_from": lambda value: value,
    "subscribe_from": _origin,
    "default_args": check_defaults,
    "max_active_runs": whole(1),
    "max_active_tasks": optional(whole(1)),
    "priority": whole(-MAX_PRIORITY, MAX_PRIORITY),
    "timeout": optional(positive_seconds),
    "tags": _texts,
    "owner": optional(text),
    "description": optional(text),
    "on_success": callbacks,
    "on_failure": callbacks,
    "on_pause": _on_pause,
    "deadlines": deadlines,
    "dag": _no_parent,
    "retention": optional(retention_spec),
    "result": optional(text),
    "presets": optional(_presets),
    "executor": optional(executor_spec),
}
