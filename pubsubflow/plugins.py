"""Plugins: triggers of other distributions, found by entry points."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger

TRIGGER_GROUP = "pubsubflow.triggers"

_encode = msgspec.msgpack.Encoder().encode


# Cached: reading the metadata of all installed distributions takes milliseconds.
@cache
def _triggers() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=TRIGGER_GROUP)}


@cache
def trigger_name(kind: type[Trigger]) -> str:
    """Return the name under which a trigger's type is registered.

    Raises:
        DefinitionError: It is not registered.
    """
    value = f"{kind.__module__}:{kind.__qualname__}"
    for name, point in _triggers().items():
        if point.value.replace(" ", "") == value:
            return name
    raise DefinitionError(
        f"trigger {kind.__qualname__} is not registered, so no triggerer can find it: put it in an "
        f'installed package with the entry point `"name" = "{value}"` in the group '
        f"{TRIGGER_GROUP!r}"
    )


@cache
def trigger_type(name: str) -> type[Trigger]:
    """Return the type that is registered under a name.

    Raises:
        TriggerError: No type is, it cannot be imported, or it is not a trigger.
    """
    point = _triggers().get(name)
    if point is None:
        raise TriggerError(
            f"trigger {name!r} is not installed here: install its package beside the daemon, and "
            "restart that"
        )
    try:
        found: Any = point.load()
    except Exception as error:
        raise TriggerError(f"trigger {name!r} cannot be imported: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, Trigger)):
        raise TriggerError(
            f"trigger {name!r}: {point.value} is not a subclass of pubsubflow.Trigger"
        )
    return found


def encode_trigger(trigger: Trigger) -> bytes:
    """Return a trigger's fields as a MessagePack map.

    Raises:
        DefinitionError: A field cannot be encoded.
    """
    try:
        return _encode(trigger)
    except TypeError as error:
        name = type(trigger).__qualname__
        raise DefinitionError(f"trigger {name} cannot be encoded: {error}") from error


def decode_trigger(name: str, data: bytes) -> Trigger:
    """Return a trigger from its registered name and its fields.

    Raises:
        TriggerError: It is not installed, or its fields are those of another version.
    """
    try:
        return msgspec.msgpack.decode(data, type=trigger_type(name))
    except (msgspec.DecodeError, DefinitionError) as error:
        raise TriggerError(
            f"trigger {name!r} cannot decode its fields: {error}; install the same version here "
            "and where the task runs"
        ) from error
