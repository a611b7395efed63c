"""State in a task's context: small values that its DAG keeps from run to run."""

from collections.abc import Callable
from typing import Any

from pubsubflow.authoring.datasets import Dataset, uri_of
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.errors import InvalidInput
from pubsubflow.model.values.state import (
    StateChange,
    StateValue,
    check_state_name,
    decode_state,
    encode_state,
)

Name = Dataset | str


class DagState:
    """The state of the DAG as one attempt reads and changes it.

    Args:
        read: Reads a value of the store.
        check: Raises where a change is not possible, such as inside of a step.
    """

    def __init__(self, read: Callable[[str], StateValue], check: Callable[[], None]) -> None:
        self._read = read
        self._check = check
        self._known: dict[str, StateValue] = {}
        self._changed: dict[str, str | None] = {}

    def __getitem__(self, name: Name) -> Any:
        """Return a value; KeyError when it is not set."""
        text = self._text(state_key(name))
        if text is None:
            raise KeyError(f"the state has no {state_key(name)!r}; ctx.state.get(name, default)")
        return decode_state(text)

    def get(self, name: Name, default: Any = None) -> Any:
        """Return a value, or the default when it is not set."""
        text = self._text(state_key(name))
        return default if text is None else decode_state(text)

    def __contains__(self, name: Name) -> bool:
        return self._text(state_key(name)) is not None

    def __setitem__(self, name: Name, value: Any) -> None:
        """Set a value; it takes effect exactly once, when the task succeeds."""
        self._check()
        try:
            self._changed[state_key(name)] = encode_state(value)
        except InvalidInput as error:
            raise definition_error(f"ctx.state[{name!r}]: {error}") from error

    def __delitem__(self, name: Name) -> None:
        """Reset a value, when the task succeeds."""
        self._check()
        self._changed[state_key(name)] = None

    def changes(self) -> tuple[StateChange, ...]:
        """Return the changes, with the versions that were read."""
        return tuple(
            StateChange(name, text, self._known[name].version if name in self._known else None)
            for name, text in self._changed.items()
        )

    def _text(self, key: str) -> str | None:
        if key in self._changed:
            return self._changed[key]
        if key not in self._known:
            self._known[key] = self._read(key)
        return self._known[key].value


def state_key(name: Name) -> str:
    """Return the name under which a value is stored: a dataset's is its URI."""
    try:
        if isinstance(name, Dataset) or (isinstance(name, str) and "://" in name):
            return uri_of(name)
        return check_state_name(name)
    except InvalidInput as error:
        raise definition_error(f"ctx.state[{name!r}]: {error}") from error
