"""Array types of PostgreSQL, which the driver would look up on each connection.

It knows how values of the basic types are written, but looks up each array of them: a query of
the server's catalog that takes longer than all else at the start of a connection. The numbers of
basic types are the same on every server.
"""

from typing import Any

import asyncpg

# From https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
ARRAY_TYPES = {
    "bool": (1000, 16),
    "bytea": (1001, 17),
    "int2": (1005, 21),
    "int4": (1007, 23),
    "int8": (1016, 20),
    "float8": (1022, 701),
    "xid": (1011, 28),
    "timestamptz": (1185, 1184),
    "uuid": (2951, 2950),
    "jsonb": (3807, 3802),
}
"""Name of a type → numbers of the type of its arrays, and of itself; text[] the driver knows."""


def declare_array_types(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Register the array types of our statements; codecs of their elements are set by then."""
    # A driver without it looks them up.
    register: Any = getattr(connection.get_settings(), "register_data_types", None)
    if register is not None:
        register([_row(name, *numbers) for name, numbers in ARRAY_TYPES.items()])


def _row(name: str, array: int, element: int) -> dict[str, Any]:
    """Return an array type as the driver's query would."""
    return {
        "oid": array,
        "ns": "pg_catalog",
        "name": f"_{name}",
        "kind": b"b",
        "basetype": None,
        "elemtype": element,
        "elemdelim": ",",
        "range_subtype": None,
        "attrtypoids": None,
        "attrnames": None,
        "depth": 1,
        "basetype_name": None,
        "elemtype_name": name,
        "range_subtype_name": None,
    }
