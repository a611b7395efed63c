"""Revisions detect concurrent changes, so that two writers do not overwrite each other's.

An object that people change carries a revision, a text that differs after every change. A change
may name the revision that it is based on; it then fails if the object has another one.
"""

from collections.abc import Collection
from datetime import datetime

from pubsubflow.errors import StaleRevision

Revisions = Collection[str] | None
"""The revisions that a change may be based on; None for any."""


def check_revision(what: str, revision: str, expected: Revisions) -> None:
    """Check that a change may be made; call it under the lock under which the change is written.

    Args:
        what: Name of the object, for people.
        revision: Its present revision.
        expected: The revisions that the change may be based on.

    Raises:
        StaleRevision: The present revision is not one of them.
    """
    if expected is not None and revision not in expected:
        raise StaleRevision(what, revision)


def dag_revision(version: int, changes: int) -> str:
    """Return the revision of a DAG.

    Args:
        version: Number of the version in force.
        changes: Number of changes that people have made.
    """
    return f"{version}-{changes}"


def dead_letter_revision(resent_at: datetime | None, discarded_at: datetime | None) -> str:
    """Return the revision of a dead letter, which changes once: when it is resent or discarded."""
    if discarded_at is not None:
        return "discarded"
    return "kept" if resent_at is None else "resent"


def connection_revision(version: int | None) -> str:
    """Return the revision of a connection; `absent` for one that does not exist."""
    return "absent" if version is None else str(version)


def pool_revision(changed_at: datetime | None) -> str:
    """Return the revision of a pool.

    Args:
        changed_at: When its slots were last set; None if they never were.
    """
    return "unset" if changed_at is None else str(int(changed_at.timestamp() * 1_000_000))
