"""The state of a DAG in a test: it begins as given, and is shown at the run's end."""

from collections.abc import Mapping, Sequence
from typing import Any

from pubsubflow.authoring.runtime.state import state_key
from pubsubflow.model.values.state import (
    StateChange,
    StateValue,
    decode_state,
    encode_state,
    find_conflict,
)


class TestState:
    """The state of the DAG of one in-process run.

    Args:
        given: Name or dataset → value.
    """

    __test__ = False  # not a test, although it is named like one

    def __init__(self, given: Mapping[Any, Any] | None = None) -> None:
        self._values = {
            state_key(name): StateValue(encode_state(value), 1)
            for name, value in (given or {}).items()
        }

    def read(self, name: str) -> StateValue:
        """Return a value."""
        return self._values.get(name, StateValue())

    def apply(self, changes: Sequence[StateChange]) -> str | None:
        """Apply the changes of a task that succeeded; return what conflicts, if anything."""
        versions = {change.name: self.read(change.name).version for change in changes}
        conflict = find_conflict(changes, versions)
        if conflict is None:
            for change in changes:
                version = self.read(change.name).version + 1
                self._values[change.name] = StateValue(change.value, version)
        return conflict

    def values(self) -> dict[str, Any]:
        """Return the values that are set."""
        return {
            name: decode_state(each.value)
            for name, each in self._values.items()
            if each.value is not None
        }
