"""CEL expressions are compiled and checked where users write them."""

from collections.abc import Sequence

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.errors import DefinitionError
from pubsubflow.model.cel.checks import check_expression


def checked_expression(
    expression: object, names: Sequence[str], what: str, *, condition: bool = False
) -> str:
    """Return an expression that can be evaluated.

    Args:
        expression: As the user wrote it.
        names: The variables it may use.
        what: The argument that holds it, for messages.
        condition: Whether it must be true for something to happen.

    Raises:
        DefinitionError: It cannot be evaluated; see `check_expression`.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise definition_error(f"{what} takes a CEL expression as a string, not {expression!r}")
    try:
        check_expression(expression, names, condition=condition)
    except DefinitionError as error:
        raise definition_error(f"{what}: {error.message}") from error
    return expression
