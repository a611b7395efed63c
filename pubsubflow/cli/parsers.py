"""Parsers of option values: mappings, moments and lengths of time."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, overload

import msgspec

from pubsubflow.cli.shell.parameter import Number, Parameter
from pubsubflow.errors import ConfigError

# The relative form -2h would otherwise be taken for an option.
Moment = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
Limit = Annotated[int, Parameter(validator=Number(gte=1))]
"""How many items a list shows."""
InputFile = Annotated[Path, Parameter(allow_leading_hyphen=True)]
"""A file, or - for stdin, which would otherwise be taken for an option."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PIECE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_BEFORE = re.compile(r"-?(?:\d+(?:\.\d+)?[smhdw])+")


def pairs(whole: str | None, single: Iterable[str], name: str) -> dict[str, Any]:
    """Return a mapping given as one JSON object, as `name=value`, or as both.

    Args:
        whole: A JSON object.
        single: Texts `name=value`; a value is JSON if it parses as such, else text.
        name: The option that takes one pair, for error messages.

    Raises:
        ConfigError: The text is not a JSON object, or a pair has no `=`.
    """
    found = {} if whole is None else mapping(whole)
    for pair in single:
        key, value = split_pair(pair, name)
        found[key] = json_or_text(value)
    return found


def split_pair(pair: str, name: str) -> tuple[str, str]:
    """Return the name and the value of `name=value`.

    Args:
        pair: The text.
        name: The option that takes it, for error messages.

    Raises:
        ConfigError: It has no `=`.
    """
    key, equals, value = pair.partition("=")
    if not (key and equals):
        raise ConfigError(f"--{name} takes name=value, for example rows=42, not {pair!r}")
    return key, value


@overload
def moment(text: str, now: datetime | None = None) -> datetime: ...
@overload
def moment(text: None, now: datetime | None = None) -> None: ...
def moment(text: str | None, now: datetime | None = None) -> datetime | None:
    """Return a moment: ISO 8601, `2026-11-20`, `now`, or `-2h`, `1d12h` before now.

    A moment without a zone is in local time.

    Args:
        text: The option's value.
        now: The current time; taken from the clock if left out.

    Raises:
        ConfigError: The text has another form.
    """
    if text is None:
        return None
    now = now or datetime.now().astimezone()
    try:
        if text == "now":
            return now
        if _BEFORE.fullmatch(text):
            pieces = _PIECE.findall(text)
            seconds = sum(float(number) * _UNITS[unit] for number, unit in pieces)
            return now - timedelta(seconds=seconds)
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{text!r} is not a moment: write 2026-11-20, 2026-11-20T16:00, now, or -2h"
        ) from error


def span(text: str) -> timedelta:
    """Return a length of time, such as `90d` or `1d12h`.

    Raises:
        ConfigError: The text has another form.
    """
    pieces = _PIECE.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise ConfigError(f"{text!r} is not a length of time: write 90d, 12h, or 1d12h")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in pieces))
    except OverflowError as error:
        raise ConfigError(f"{text!r} is too long") from error


def mapping(text: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ConfigError: The text is not one.
    """
    try:
        return msgspec.json.decode(text.removeprefix("\ufeff"), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{text!r} is not a JSON object such as '{{\"rows\": 42}}'") from error


def json_or_text(text: str) -> Any:
    """Return a value in JSON, or else the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
