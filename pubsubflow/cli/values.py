"""Values given on the command line."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from pubsubflow.errors import ConfigError


def pairs(whole: str | None, single: Iterable[str], name: str) -> dict[str, Any]:
    """Return a mapping given as one JSON object, as `name=value`, or as both.

    Args:
        whole: A JSON object.
        single: Texts `name=value`; a value is JSON if it can be, else text.
        name: What a flag of one pair is called, for messages.

    Raises:
        ConfigError: The object is none, or a pair has no `=`.
    """
    found = {} if whole is None else _object(whole)
    for pair in single:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"--{name} takes name=value, for example rows=42, not {pair!r}")
        found[key] = _value(value)
    return found


def aware(time: datetime | None) -> datetime | None:
    """Return a moment with a zone; without one it is meant in local time."""
    return None if time is None else time.astimezone()


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{text!r} is no JSON object such as '{{\"rows\": 42}}'") from error


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
