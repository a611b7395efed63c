"""CEL expressions as users write them: compiled when they are written."""

import re
from collections.abc import Sequence

from pubsubflow.authoring.source_location import mistake
from pubsubflow.errors import DefinitionError
from pubsubflow.model.expressions import compile_expression

_TYPES = frozenset(
    [
        "bool",
        "bytes",
        "double",
        "int",
        "list",
        "map",
        "null_type",
        "optional",
        "string",
        "type",
        "uint",
    ]
)
_OWN_NAMES = r"[(,]\s*([A-Za-z_]\w*)\s*,"


def checked(expression: object, names: Sequence[str], what: str) -> str:
    """Return an expression that compiles and knows what it speaks of.

    Args:
        expression: As the user wrote it.
        names: The variables it may use.
        what: Where it stands, for messages.

    Raises:
        DefinitionError: It is no CEL, or uses another variable.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise mistake(f"{what} takes a CEL expression as a text, not {expression!r}")
    try:
        program = compile_expression(expression)
    except DefinitionError as error:
        raise mistake(f"{what}: {error.message}") from error
    own = set(re.findall(_OWN_NAMES, expression))  # those of map(), filter() and their like
    for variable in program.variables():
        if variable not in _TYPES and variable not in own and variable not in names:
            sees = " and ".join(names)
            raise mistake(f"{what}: {expression!r} speaks of {variable!r}, but it sees {sees} only")
    return expression
