"""Revisions: what keeps two writers who look at the same thing from undoing each other's work.

An object that people change carries a revision, a text that differs after every change. Whoever
changes it may say which one they saw; then the change happens to that one or not at all.
"""

from collections.abc import Collection
from datetime import datetime

from pubsubflow.errors import StaleRevision

Revisions = Collection[str] | None
"""The revisions that a change may be made to; None for any."""


def check_revision(what: str, revision: str, wanted: Revisions) -> None:
    """Return if a change may be made; call it under the lock under which the change is written.

    Args:
        what: What is to be changed, for people.
        revision: Its revision now.
        wanted: Those that will do.

    Raises:
        StaleRevision: It is another one.
    """
    if wanted is not None and revision not in wanted:
        raise StaleRevision(what, revision)


def dag_revision(version: int, changes: int) -> str:
    """Return the revision of a DAG.

    Args:
        version: Number of the version in force.
        changes: How often people have changed it.
    """
    return f"{version}-{changes}"


def letter_revision(resent_at: datetime | None) -> str:
    """Return the revision of a dead letter: it changes once, when it is sent again."""
    return "kept" if resent_at is None else "resent"


def connection_revision(version: int | None) -> str:
    """Return the revision of a connection; `absent` for one that is not there."""
    return "absent" if version is None else str(version)


def pool_revision(changed_at: datetime | None) -> str:
    """Return the revision of a pool.

    Args:
        changed_at: When its slots were set last; None if nobody has set them.
    """
    return "unset" if changed_at is None else str(int(changed_at.timestamp() * 1_000_000))
