"""Secrets that a trigger's fields name instead of holding."""

import os

from pubsubflow.errors import TriggerError

_PREFIX = "env:"


def resolve(value: str) -> str:
    """Return a secret: the value itself, or for `env:NAME` that variable's value.

    The environment is the triggerer's, so a trigger's stored fields hold the name alone.

    Raises:
        TriggerError: The variable is not set where the trigger runs.
    """
    if not value.startswith(_PREFIX):
        return value
    name = value.removeprefix(_PREFIX)
    found = os.environ.get(name)
    if found is None:
        raise TriggerError(
            f"environment variable {name!r} is not set for the triggerer: set it and start the "
            "daemon again"
        )
    return found
