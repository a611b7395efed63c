"""Questions of Airflow's code as those of our managers, and their answers as plain values."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.airflow.outside.assets import dataset_uri
from pubsubflow.airflow.structure import AssetStructure
from pubsubflow.authoring.runtime import results
from pubsubflow.model.wire.task_questions import (
    ChangeState,
    ClearRun,
    FindDag,
    FindEvents,
    FindRunBefore,
    FindRuns,
    FindTaskBefore,
    FindTasks,
    FindVariables,
    LeaveValue,
    SetVariable,
    TaskQuestion,
)

_KINDS: dict[str, Any] = {
    "clear_run": ClearRun,
    "dag": FindDag,
    "events": FindEvents,
    "run_before": FindRunBefore,
    "runs": FindRuns,
    "set_variable": SetVariable,
    "state": ChangeState,
    "task_before": FindTaskBefore,
    "variables": FindVariables,
}
_OF_ASSETS = ("events", "state")


def question_of(kind: str, given: Mapping[str, Any]) -> TaskQuestion:
    """Return the question of a kind.

    Args:
        kind: Its kind.
        given: Its fields; an asset is given as its name, URI and kind in place of a dataset's URI.

    Raises:
        KeyError: It is of no known kind.
    """
    fields = dict(given)
    if kind in _OF_ASSETS and fields.get("asset") is not None:
        fields["uri"] = dataset_uri(AssetStructure(**fields.pop("asset")))
    if kind == "leave":
        return LeaveValue(fields["key"], _encoded(fields["key"], fields["value"]))
    if kind == "take_away":
        return LeaveValue(fields["key"], None)
    if kind == "tasks":
        runs = question_of("runs", fields.pop("runs"))
        if not isinstance(runs, FindRuns):
            raise TypeError("the runs of tasks are found by a FindRuns")
        task_ids = fields.get("task_ids")
        named = None if task_ids is None else tuple(task_ids)
        return FindTasks(runs, named, fields.get("group"), fields.get("map_index"))
    found: TaskQuestion = _converted(_KINDS[kind], fields)
    return found


def _converted(kind: type[Struct], fields: Mapping[str, Any]) -> Any:
    """Return a question, whose moments may come as texts."""
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    required = len(names) - len(defaults)
    values = [
        fields[name] if name in fields else defaults[index - required]
        for index, name in enumerate(names)
    ]
    return msgspec.convert([kind.__struct_config__.tag, *values], kind, strict=False)


def _encoded(key: str, value: Any) -> bytes:
    try:
        return results.encode(value, results.MAX_RESULT_BYTES)[0] or results.NONE
    except results.UnsupportedResult as error:
        raise ValueError(f"XCom {key!r}: {error}") from error


def plain(answer: Any) -> Any:
    """Return an answer as dicts, lists and plain values."""
    if isinstance(answer, Struct):
        return {name: plain(getattr(answer, name)) for name in answer.__struct_fields__}
    if isinstance(answer, list | tuple):
        return [plain(each) for each in answer]
    return answer
