"""Concurrency keys that differ from run to run: texts with values of the run, and nothing else.

A manager renders them, and a manager runs no user code: so a key is a list of texts and of paths to
values that are known when the run is made. See ADR 26.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

MAX_KEY_CHARACTERS = 200
_DIGEST_CHARACTERS = 32


class KeyPart(Struct, frozen=True, omit_defaults=True):
    """A part of a concurrency key.

    Attributes:
        text: A text as it stands; None for a value.
        path: The way to the value: `("params", "tenant")`.
        default: In place of a value that is missing or null; None for an empty text.
        case: `lower` or `upper`, if its letters are changed.
    """

    text: str | None = None
    path: tuple[str | int, ...] = ()
    default: str | None = None
    case: str | None = None


class FurtherKey(Struct, frozen=True, omit_defaults=True):
    """A concurrency key that a task has beside its own one.

    Attributes:
        parts: Of the key, as it follows from the run.
        limit: How many tasks with it run at once.
    """

    parts: tuple[KeyPart, ...]
    limit: int


def render_key(parts: Sequence[KeyPart], facts: Mapping[str, Any]) -> str:
    """Return the key of one task.

    Args:
        parts: The key's parts.
        facts: First name of a path → its value.

    Returns:
        At most MAX_KEY_CHARACTERS characters; a longer key ends in a digest of the whole.
    """
    key = "".join(_render(part, facts) for part in parts)
    # Postgres takes no NUL, and a key is a part of an index, whose rows are small.
    key = key.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    key = key.encode(errors="replace").decode()
    if len(key) <= MAX_KEY_CHARACTERS:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{key[: MAX_KEY_CHARACTERS - _DIGEST_CHARACTERS - 1]}~{digest}"


def _render(part: KeyPart, facts: Mapping[str, Any]) -> str:
    if part.text is not None:
        return part.text
    value: Any = facts
    for step in part.path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
            break
    text = part.default or "" if value is None else _text(value)
    if part.case is None:
        return text
    return text.lower() if part.case == "lower" else text.upper()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)
