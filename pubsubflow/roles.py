"""Roles of a daemon: which of the services it plays."""

from difflib import get_close_matches

from pubsubflow.errors import ConfigError

ROLES = frozenset({"api", "manager", "scheduler", "triggerer", "worker"})


def check_roles(roles: frozenset[str]) -> None:
    """Check that there are roles, and that all are known.

    Raises:
        ConfigError: They are not; the text names the first unknown one.
    """
    known = ", ".join(sorted(ROLES))
    for role in sorted(roles - ROLES):
        close = get_close_matches(role, ROLES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"roles are {known}"
        raise ConfigError(f"role {role!r} is unknown: {hint}")
    if not roles:
        raise ConfigError(f"a daemon needs a role at least: {known}")
