"""Classes and functions of older versions that have no successor of the same shape."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

# Class → its keyword for the connection, and the default of it.
SQL_OPERATORS = {
    "JdbcOperator": ("jdbc_conn_id", "jdbc_default"),
    "MsSqlOperator": ("mssql_conn_id", "mssql_default"),
    "MySqlOperator": ("mysql_conn_id", "mysql_default"),
    "OracleOperator": ("oracle_conn_id", "oracle_default"),
    "PostgresOperator": ("postgres_conn_id", "postgres_default"),
    "RedshiftSQLOperator": ("redshift_conn_id", "redshift_default"),
    "SnowflakeOperator": ("snowflake_conn_id", "snowflake_default"),
    "SqliteOperator": ("sqlite_conn_id", "sqlite_default"),
    "TrinoOperator": ("trino_conn_id", "trino_default"),
}


def __getattr__(name: str) -> Any:
    """Return the operator for one kind of database, made when it is first used."""
    if name not in SQL_OPERATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _sql_operator(name)


@functools.cache
def _sql_operator(name: str) -> type:
    # Only bundles whose files use one need the provider.
    from airflow.providers.common.sql.operators.sql import (  # noqa: PLC0415
        SQLExecuteQueryOperator,
    )

    keyword, default = SQL_OPERATORS[name]

    def __init__(self: Any, *, sql: Any, **kwargs: Any) -> None:  # noqa: N807
        named = kwargs.pop(keyword, None)
        kwargs["conn_id"] = named or kwargs.get("conn_id") or default
        # Hooks of databases have called it so since 2.5.
        schema = kwargs.pop("schema", None)
        if schema is not None:
            kwargs.setdefault("database", schema)
        # Of Snowflake's: the connection has them today.
        extra = {each: kwargs.pop(each) for each in ("warehouse", "role") if each in kwargs}
        if extra:
            kwargs["hook_params"] = {**extra, **kwargs.get("hook_params", {})}
        SQLExecuteQueryOperator.__init__(self, sql=sql, **kwargs)

    body = {"__init__": __init__, "__module__": __name__, "__qualname__": name}
    body["__doc__"] = f"Runs SQL, as {name} did."
    # Made by the class of operators, which wraps each constructor that it sees.
    made: type = type(SQLExecuteQueryOperator)(name, (SQLExecuteQueryOperator,), body)
    return made


def days_ago(
    n: int, hour: int = 0, minute: int = 0, second: int = 0, microsecond: int = 0
) -> datetime:
    """Return a time of the day n days ago, in UTC."""
    today = datetime.now(UTC).replace(
        hour=hour, minute=minute, second=second, microsecond=microsecond
    )
    return today - timedelta(days=n)


def identity(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as it is: what `apply_defaults` did is done for all operators."""
    return function


def configuration_get(section: str, key: str, **options: Any) -> Any:
    """Return an option of `airflow.cfg`."""
    return _configuration().get(section, key, **options)


def configuration_getboolean(section: str, key: str, **options: Any) -> Any:
    """Return an option of `airflow.cfg` that is true or false."""
    return _configuration().getboolean(section, key, **options)


def configuration_getint(section: str, key: str, **options: Any) -> Any:
    """Return an option of `airflow.cfg` that is a number."""
    return _configuration().getint(section, key, **options)


def _configuration() -> Any:
    from airflow.sdk.configuration import conf  # noqa: PLC0415 - the import makes the log folder

    return conf


def DatasetOrTimeSchedule(*, timetable: Any, datasets: Any) -> Any:  # noqa: N802
    """Return the schedule of a timetable or of assets."""
    from airflow.timetables.assets import AssetOrTimeSchedule  # noqa: PLC0415 - where it is used

    return AssetOrTimeSchedule(timetable=timetable, assets=datasets)


def mkdirs(path: str, mode: int = 0o755) -> None:
    """Make a folder and those above it."""
    Path(path).mkdir(mode=mode, parents=True, exist_ok=True)


def Port(name: str, container_port: int) -> Any:  # noqa: N802
    """Return a port of a pod."""
    return _kubernetes().V1ContainerPort(name=name, container_port=container_port)


def Volume(name: str, configs: dict[str, Any]) -> Any:  # noqa: N802
    """Return a volume of a pod, from the dictionary of its source."""
    client = _kubernetes()
    claim = configs.get("persistentVolumeClaim")
    if claim is not None:
        source = client.V1PersistentVolumeClaimVolumeSource(claim_name=claim["claimName"])
        return client.V1Volume(name=name, persistent_volume_claim=source)
    api = client.ApiClient()
    # The client's own decoder of API objects, which takes what looks like a response.
    return api._ApiClient__deserialize({"name": name, **configs}, "V1Volume")  # noqa: SLF001


def VolumeMount(  # noqa: N802
    name: str,
    mount_path: str,
    sub_path: str | None = None,
    read_only: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    """Return where a volume is mounted in a pod."""
    return _kubernetes().V1VolumeMount(
        name=name, mount_path=mount_path, sub_path=sub_path, read_only=read_only
    )


def _kubernetes() -> Any:
    from kubernetes import client  # noqa: PLC0415 - only bundles that have pods have it

    return client
