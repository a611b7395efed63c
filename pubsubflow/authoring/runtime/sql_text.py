"""SQL text: named parameters `:name` are bound, whatever form a driver has for them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pubsubflow.errors import InvalidInput

Parameters = Mapping[str, Any] | Sequence[Any] | None

# What may hold a colon that begins no parameter, before what may be one.
_TOKEN = re.compile(
    r"""
    '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | ::
    | (?<![\w:]):(?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


def number_parameters(sql: str, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return a statement with `$1`, `$2` … for its named parameters, and their values in order.

    Raises:
        InvalidInput: A parameter has no value.
    """
    order: dict[str, int] = {}

    def number(found: "re.Match[str]") -> str:
        name = found["name"]
        if name is None:
            return found[0]
        if name not in values:
            known = ", ".join(values) or "none"
            raise InvalidInput(f"the parameter :{name} has no value (given: {known})")
        return f"${order.setdefault(name, len(order) + 1)}"

    text = _TOKEN.sub(number, sql)
    return text, [values[name] for name in order]


def bound_names(sql: str) -> frozenset[str]:
    """Return the names of a statement's parameters; what stands in texts and comments is none."""
    return frozenset(found["name"] for found in _TOKEN.finditer(sql) if found["name"])


def numbered(sql: str, parameters: Parameters) -> tuple[str, list[Any]]:
    """Return a statement and values for a driver that numbers parameters.

    Args:
        sql: With `:name` if the parameters are a mapping, with `$1` if they are a sequence.
        parameters: The values.
    """
    if isinstance(parameters, Mapping):
        return number_parameters(sql, parameters)
    return sql, list(parameters or ())


def quote_identifier(name: object) -> str:
    """Return a name of a table or column, perhaps with dots, quoted for SQL.

    Raises:
        InvalidInput: It is not a text, or is empty.
    """
    parts = str(name).split(".")
    if not all(parts) or "\0" in str(name):
        raise InvalidInput(f"{name!r} cannot be the name of a table or column")
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
