"""Questions of Airflow's tasks in a test, which knows of no other runs: answered from memory."""

from typing import Any

import msgspec
from msgspec import Raw

from pubsubflow.model.values.variables import Variable, make_variable
from pubsubflow.model.wire.messages import EventInfo
from pubsubflow.model.wire.outputs import PulledValues
from pubsubflow.model.wire.task_questions import (
    ChangeState,
    FindDag,
    FindEvents,
    FindRunBefore,
    FindTaskBefore,
    FindVariables,
    FoundNames,
    KeptValue,
    LeaveValue,
    ReadVariable,
    SetVariable,
    TaskQuestion,
)

_NOTHING = (FindDag, FindRunBefore, FindTaskBefore)


class TestQuestions:
    """Answers the tasks of one run, and keeps what they leave.

    Args:
        variables: Those of the run; changes are made in them.
        consumed: The events that the run consumed: a test has no others.
    """

    __test__ = False

    def __init__(
        self, variables: dict[str, Variable], consumed: tuple[EventInfo, ...] = ()
    ) -> None:
        self._variables = variables
        self._consumed = consumed
        self._early: dict[tuple[str, int, str], bytes] = {}
        self._kept: dict[tuple[Any, ...], str] = {}

    def answer(self, question: TaskQuestion, task_id: str, map_index: int) -> Any:
        """Return the answer to a question of a task."""
        match question:
            case LeaveValue(key, value):
                self._leave((task_id, map_index, key), value)
                return None
            case ChangeState():
                owner = (task_id, map_index) if question.uri is None else (question.uri,)
                return self._change(owner, question)
            case FindEvents(uri):
                return tuple(each for each in self._consumed if each.dataset == uri)
            case SetVariable() | ReadVariable() | FindVariables():
                return self._of_variables(question)
        return None if isinstance(question, _NOTHING) else ()

    def _of_variables(self, question: SetVariable | ReadVariable | FindVariables) -> Any:
        match question:
            case SetVariable(name, value):
                known = self._variables.pop(name, None) is not None
                if value is not None:
                    self._variables[name] = make_variable(name, value)
                return known
            case ReadVariable(name):
                return self._variables.get(name)
            case FindVariables(prefix, limit, offset):
                names = sorted(name for name in self._variables if name.startswith(prefix))
                return FoundNames(tuple(names[offset : offset + limit]), len(names))

    def _leave(self, address: tuple[str, int, str], value: bytes | None) -> None:
        if value is None:
            self._early.pop(address, None)
        else:
            self._early[address] = value

    def with_early(
        self, found: PulledValues, task_id: str, key: str, map_index: int | None
    ) -> PulledValues:
        """Return pulled values with those that a task which runs beside has left."""
        known = {index for index, *_ in found.values}
        more = tuple(
            (index, Raw(value), False)
            for (task, index, name), value in self._early.items()
            if (task, name) == (task_id, key) and index not in known and map_index in (None, index)
        )
        return msgspec.structs.replace(found, values=(*found.values, *more)) if more else found

    def _change(self, owner: tuple[Any, ...], question: ChangeState) -> KeptValue | None:
        key = (*owner, question.key)
        if question.operation == "get":
            found = self._kept.get(key)
            return None if found is None else KeptValue(found)
        if question.operation == "set":
            self._kept[key] = question.value or "null"
        elif question.operation == "delete":
            self._kept.pop(key, None)
        else:
            self._kept = {each: value for each, value in self._kept.items() if each[:-1] != owner}
        return None
