"""Triggers are encoded as their registered name and their fields."""

from datetime import datetime

import msgspec

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.errors import DefinitionError
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.triggers import Trigger

# Entry points take long to read, and most files define no trigger.
_plugins = lazy_module("pubsubflow.plugins")


def encode_checked(trigger: object, what: str) -> tuple[str, bytes]:
    """Return a trigger's registered name and its encoded fields.

    Args:
        trigger: The trigger.
        what: The caller, for messages.

    Raises:
        DefinitionError: It is not a trigger, it is not registered, or a field does not have its
            declared type.
    """
    if not isinstance(trigger, Trigger):
        hint = f"; call it: {trigger.__name__}(…)" if isinstance(trigger, type) else ""
        raise definition_error(f"{what} takes a trigger, not {trigger!r}{hint}")
    kind = type(trigger)
    for field in trigger.__struct_fields__:
        value = getattr(trigger, field)
        if isinstance(value, datetime) and value.tzinfo is None:
            raise definition_error(
                f"{what}: {kind.__name__}({field}={value!r}) has no time zone; "
                "use datetime(..., tzinfo=UTC)"
            )
    try:
        name: str = _plugins.trigger_name(kind)
        data: bytes = _plugins.encode_trigger(trigger)
        # Structs do not check types in constructors: the triggerer would fail to decode it.
        msgspec.msgpack.decode(data, type=kind)
    except (DefinitionError, msgspec.ValidationError) as error:
        reason = error.message if isinstance(error, DefinitionError) else error
        raise definition_error(f"{what}: {kind.__name__}: {reason}") from error
    return name, data
