"""The DAGs that a connection is for: an allow-list of ids, and patterns of them."""

import re
from collections.abc import Iterable, Sequence

from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.model.datasets import matches

_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,250}\Z")
_ALL = frozenset(("*", "**"))


def normalise_dags(name: str, dags: Iterable[str]) -> tuple[str, ...]:
    """Return the allow-list of a connection, sorted; empty for all DAGs, as `*` is.

    Args:
        name: Of the connection, for errors.
        dags: Ids of DAGs; `*` stands for any part of one.

    Raises:
        InvalidInput: One is neither an id nor a pattern of ids.
    """
    found = sorted(set(dags))
    for each in found:
        if not _PATTERN.match(each):
            raise InvalidInput(
                f"connection {name!r}: dags has {each!r}, which is not the id of a DAG, or a "
                "pattern such as etl_*"
            )
    return () if _ALL.intersection(found) else tuple(found)


def split_dags(name: str, text: str) -> tuple[str, ...]:
    """Return the allow-list in a text, separated by commas.

    Raises:
        InvalidInput: It names no DAG, or one is neither an id nor a pattern.
    """
    return normalise_dags(name, [each.strip() for each in text.split(",")])


def is_for(dags: Sequence[str], dag_id: str) -> bool:
    """Return whether a connection with this allow-list is for a DAG."""
    return not dags or any(matches(each, dag_id) for each in dags)


def check_dag(name: str, dags: Sequence[str], dag_id: str) -> None:
    """Check that a connection is for a DAG.

    Raises:
        ConfigError: It is for others.
    """
    if not is_for(dags, dag_id):
        raise ConfigError(
            f"connection {name!r} is for DAGs {', '.join(dags)}; this is {dag_id!r}: take another "
            "connection, or have an admin add the DAG to its dags"
        )


def check_no_dag(name: str, dags: Sequence[str], user: str) -> None:
    """Check that what belongs to no DAG may use a connection.

    Args:
        name: Of the connection.
        dags: Its allow-list.
        user: What wants to use it, such as `a webhook`.

    Raises:
        ConfigError: It is for some DAGs alone.
    """
    if dags:
        raise ConfigError(
            f"connection {name!r} is for DAGs {', '.join(dags)}, and {user} belongs to no DAG: "
            "take a connection without dags"
        )
