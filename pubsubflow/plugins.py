"""Finds what other distributions add, by entry points."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger

TRIGGERS = "pubsubflow.triggers"

_encode = msgspec.msgpack.Encoder().encode


@cache
def _triggers() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=TRIGGERS)}


@cache
def trigger_name(kind: type[Trigger]) -> str:
    """Return the name under which a trigger's type is registered.

    Raises:
        DefinitionError: It is not; the text says how to.
    """
    value = f"{kind.__module__}:{kind.__qualname__}"
    for name, point in _triggers().items():
        if point.value.replace(" ", "") == value:
            return name
    raise DefinitionError(
        f"trigger {kind.__qualname__} is not registered, so no triggerer can find it: put it in an "
        f'installed package with the entry point `"name" = "{value}"` in the group {TRIGGERS!r}'
    )


@cache
def trigger_type(name: str) -> type[Trigger]:
    """Return the type that is registered under a name.

    Raises:
        TriggerError: None is, it cannot be imported, or it is no trigger.
    """
    point = _triggers().get(name)
    if point is None:
        raise TriggerError(
            f"no trigger {name!r} is installed here: install the package that has it beside the "
            "daemon and start that again"
        )
    try:
        found: Any = point.load()
    except Exception as error:
        raise TriggerError(f"trigger {name!r} cannot be imported: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, Trigger)):
        raise TriggerError(f"trigger {name!r}: {point.value} is no subclass of pubsubflow.Trigger")
    return found


def encode_trigger(trigger: Trigger) -> bytes:
    """Return a trigger's fields as a MessagePack map.

    Raises:
        DefinitionError: A field cannot be carried.
    """
    try:
        return _encode(trigger)
    except TypeError as error:
        name = type(trigger).__qualname__
        raise DefinitionError(f"trigger {name} cannot be carried: {error}") from error


def decode_trigger(name: str, data: bytes) -> Trigger:
    """Return a trigger from its registered name and its fields.

    Raises:
        TriggerError: It is not installed, or its fields are of another version.
    """
    try:
        return msgspec.msgpack.decode(data, type=trigger_type(name))
    except (msgspec.DecodeError, DefinitionError) as error:
        raise TriggerError(
            f"trigger {name!r} does not understand its fields: {error}; "
            "was another version installed where the task ran?"
        ) from error
