"""Variables: named JSON values that people set and DAGs read."""

import re
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.redaction import MASK, looks_secret

ENVIRONMENT = "PUBSUBFLOW_VAR_"
MAX_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}\Z")
_UNFIT = re.compile(r"[^A-Z0-9_]")


class Variable(Struct, frozen=True, kw_only=True):
    """A named JSON value. Printing a secret one does not show it.

    Attributes:
        name: Letters, digits, `_`, `-` and `.`, at most 250.
        value: A JSON value; `***` in place of a secret that is not to be shown.
        secret: Whether it is stored encrypted and shown as `***`.
        description: For people.
    """

    name: str
    value: Any
    secret: bool = False
    description: str | None = None

    def __repr__(self) -> str:
        shown = MASK if self.secret else self.value
        return f"Variable(name={self.name!r}, value={shown!r}, secret={self.secret})"

    @property
    def text(self) -> str:
        """The value as text: itself if it is one, else its JSON."""
        return as_text(self.value)

    def redacted_values(self) -> frozenset[str]:
        """Return the strings to mask in logs: the texts in the value of a secret one."""
        return frozenset(_texts(self.value)) if self.secret else frozenset()


def make_variable(
    name: str, value: Any, *, secret: bool | None = None, description: str | None = None
) -> Variable:
    """Return a variable, checked.

    Args:
        name: Its name.
        value: A JSON value.
        secret: Whether it is secret; as its name says when left out.
        description: For people.

    Raises:
        InvalidInput: The name is invalid or the value is too large.
    """
    check_name(name)
    if len(msgspec.json.encode(value)) > MAX_BYTES:
        raise InvalidInput(f"variable {name!r} has more than {MAX_BYTES // 1024} KiB")
    secret = looks_secret(name) if secret is None else secret
    return Variable(name=name, value=value, secret=secret, description=description)


def check_name(name: str) -> str:
    """Return the name of a variable.

    Raises:
        InvalidInput: It is not a valid name.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} cannot name a variable: take letters, digits, _, - and ., at most 250"
        )
    return name


def as_text(value: Any) -> str:
    """Return a value as text: itself if it is one, else its JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def parse_value(text: str) -> Any:
    """Return the JSON value that a text holds, or the text itself where it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def environment_name(prefix: str, name: str) -> str:
    """Return the environment variable that stands for a name.

    Args:
        prefix: For example `PUBSUBFLOW_VAR_`.
        name: The name; other characters than letters, digits and `_` become `_`.
    """
    return prefix + _UNFIT.sub("_", name.upper())


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return set() if value is None or isinstance(value, bool) else {as_text(value)}
