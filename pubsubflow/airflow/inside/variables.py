"""Variables that are given to the import of a file in the process of its attempts."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pubsubflow.airflow.inside.comms import ClientQuestions


class GivenVariables(ClientQuestions):
    """Answers an import as it was answered when the version of the DAG was made.

    Args:
        variables: Name → its value, in a tuple that is empty for one that was not set.
    """

    def __init__(self, variables: Mapping[str, tuple[Any, ...]]) -> None:
        super().__init__(None)
        self._variables = variables

    def request(self, question: str, **arguments: Any) -> Any:
        """Answer with a variable; None for all else."""
        known = self._variables.get(arguments.get("name", "")) if question == "variable" else None
        return as_text(known[0]) if known else None


def as_text(value: Any) -> str:
    """Return a variable's value as Airflow keeps it: a text as it is, others as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
