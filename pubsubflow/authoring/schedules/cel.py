"""CEL expressions are compiled and checked where users write them."""

import re
from collections.abc import Sequence

from pubsubflow.authoring.source_location import definition_error
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
# Variables that macros such as map() and filter() bind; the interpreter reports them as free.
_MACRO_VARIABLES = r"[(,]\s*([A-Za-z_]\w*)\s*,"


def checked_expression(expression: object, names: Sequence[str], what: str) -> str:
    """Return an expression that compiles and uses known variables only.

    Args:
        expression: As the user wrote it.
        names: The variables it may use.
        what: The argument that holds it, for messages.

    Raises:
        DefinitionError: It is not CEL, or uses another variable.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise definition_error(f"{what} takes a CEL expression as a string, not {expression!r}")
    try:
        program = compile_expression(expression)
    except DefinitionError as error:
        raise definition_error(f"{what}: {error.message}") from error
    bound = set(re.findall(_MACRO_VARIABLES, expression))
    for variable in program.variables():
        if variable not in _TYPES and variable not in bound and variable not in names:
            known = " and ".join(names)
            raise definition_error(
                f"{what}: {expression!r} uses {variable!r}; the variables here are {known}"
            )
    return expression
