"""The state of a DAG: small JSON values that its tasks keep from run to run."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput

MAX_BYTES = 16 * 1024
MAX_NAME_CHARACTERS = 1_500
STATE_CONFLICT = "StateConflict"
"""The type of the error of a task whose changes conflict."""
NEVER_SET = 0
"""The version of a value that was never set."""


class StateValue(Struct, frozen=True, array_like=True):
    """A value as it is stored.

    Attributes:
        value: Its JSON; None when it is not set.
        version: Grows with every change.
    """

    value: str | None = None
    version: int = NEVER_SET


class StateChange(Struct, frozen=True, array_like=True):
    """A change that takes effect with the success of its task.

    Attributes:
        value: The JSON; None to reset it.
        read_version: The version that the task has read: the change conflicts with any other one.
            None for a task that did not read it.
    """

    name: str
    value: str | None
    read_version: int | None = None


def find_conflict(changes: Iterable[StateChange], versions: Mapping[str, int]) -> str | None:
    """Return why changes cannot take effect; None if they can.

    Args:
        changes: Those of one task.
        versions: Name → present version.
    """
    for change in changes:
        if change.read_version not in (None, versions.get(change.name, NEVER_SET)):
            return (
                f"ctx.state[{change.name!r}] was changed by another task, or by hand, after this "
                "task had read it; nothing of this attempt took effect: give the task retries, or "
                "the DAG max_active_runs=1"
            )
    return None


def check_state_name(name: str) -> str:
    """Return a name of the state.

    Raises:
        InvalidInput: It is not a printable text of 1 to 1,500 characters.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise InvalidInput(f"a name of the state has 1 to {MAX_NAME_CHARACTERS:,} characters")
    if not name.isprintable():
        raise InvalidInput(f"a name of the state is printable text, not {name!r}")
    return name


def encode_state(value: Any) -> str:
    """Return the JSON of a value.

    Raises:
        InvalidInput: It is not a JSON value, or has more than 16 KiB.
    """
    refused = InvalidInput(
        f"a state is a JSON value, and {type(value).__name__} would come back as another one; "
        "write a datetime as value.isoformat(), a tuple as a list"
    )
    try:
        text = msgspec.json.encode(value).decode()
        back = msgspec.json.decode(text)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise refused from error
    if back != value:
        raise refused
    if len(text) > MAX_BYTES:
        raise InvalidInput(
            f"a state has at most {MAX_BYTES // 1024} KiB, not {len(text):,} bytes; write it to "
            "storage and keep where it is"
        )
    return text


decode_state = msgspec.json.decode
decode_state_value = msgspec.msgpack.Decoder(StateValue).decode
