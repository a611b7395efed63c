"""Connections for tests, in any form that `DAG.test` accepts."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pubsubflow.errors import InvalidInput
from pubsubflow.model.connections import Connection, make_connection

_PARTS = frozenset(("kind", "uri", "extra", "secrets", "dags"))


def read_connections(given: Mapping[str, Any]) -> dict[str, Connection]:
    """Return connections, each given as a Connection, a URI, or a mapping of its parts.

    Raises:
        InvalidInput: One has another form.
    """
    return {name: _connection(name, each) for name, each in given.items()}


def _connection(name: str, given: Any) -> Connection:
    if isinstance(given, Connection):
        return msgspec.structs.replace(given, name=name)
    if isinstance(given, str):
        return make_connection(name, uri=given)
    if not isinstance(given, Mapping) or given.keys() - _PARTS:
        raise InvalidInput(
            f"connection {name!r}: give a Connection, a URI or a mapping of kind, uri, extra, "
            "secrets and dags"
        )
    return make_connection(name, **given)
