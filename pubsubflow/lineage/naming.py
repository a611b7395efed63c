"""Dataset names by OpenLineage's naming, from URIs.

Source: https://openlineage.io/docs/spec/naming. Other producers name the same data the same way,
so that their lineage and ours meet.
"""

from urllib.parse import SplitResult, urlsplit

from pubsubflow.lineage.openlineage import DatasetName

_SAME = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "postgresql": "postgres"}
_DOTTED = frozenset(
    {
        "cassandra",
        "crate",
        "db2",
        "fabric-warehouse",
        "hive",
        "milvus",
        "mssql",
        "mysql",
        "oceanbase",
        "oracle",
        "postgres",
        "redshift",
        "snowflake",
        "spanner",
        "sqlserver",
        "teradata",
        "trino",
        "unitycatalog",
    }
)
"""Stores whose names are `database.schema.table`."""
_PATHS = frozenset({"file", "hdfs", "dbfs"})
"""Stores whose names are absolute paths."""
_PORTS = {
    "cassandra": 9042,
    "hdfs": 8020,
    "hive": 10000,
    "kafka": 9092,
    "mssql": 1433,
    "mysql": 3306,
    "oracle": 1521,
    "postgres": 5432,
    "redshift": 5439,
}
"""Default ports: the namespace names one also where the URI does not."""


def dataset_name(uri: str) -> DatasetName:
    """Return the name of the dataset that a normalised URI stands for.

    `s3://lake/orders` is `orders` in `s3://lake`, and `postgres://warehouse/public/report` is
    `public.report` in `postgres://warehouse:5432`.
    """
    parts = urlsplit(uri)
    scheme = _SAME.get(parts.scheme, parts.scheme)
    path = parts.path.strip("/")
    if scheme == "bigquery":
        where, name = "bigquery", _dotted(f"{parts.netloc}/{path}")
    elif scheme in _DOTTED:
        where, name = _namespace(scheme, parts.netloc.rpartition("@")[2]), _dotted(path)
    else:
        where, name = _namespace(scheme, parts.netloc), path
        if scheme in _PATHS:
            name = f"/{path}"
    return DatasetName(namespace=where, name=(name or "/") + _query(parts))


def _namespace(scheme: str, authority: str) -> str:
    if not authority:
        return scheme
    port = _PORTS.get(scheme)
    bare = authority.endswith("]") or ":" not in authority
    return f"{scheme}://{authority}:{port}" if port and bare else f"{scheme}://{authority}"


def _dotted(path: str) -> str:
    return ".".join(part for part in path.split("/") if part)


def _query(parts: SplitResult) -> str:
    return f"?{parts.query}" if parts.query else ""
