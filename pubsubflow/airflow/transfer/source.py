"""The holdings of an Airflow: connections, variables, pools, which DAGs are paused."""

from pathlib import Path
from typing import Any

from msgspec import Struct, field

from pubsubflow.airflow.transfer.exports import (
    AirflowPool,
    AirflowVariable,
    read_connections,
    read_paused,
    read_pools,
    read_variables,
)


class AirflowSource(Struct):
    """What is to be imported.

    Attributes:
        connections: Name → fields as the SDK names them.
        variables: Key → variable.
        pools: Name → pool.
        paused: Id of a DAG → whether it is paused.
    """

    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    variables: dict[str, AirflowVariable] = field(default_factory=dict)
    pools: dict[str, AirflowPool] = field(default_factory=dict)
    paused: dict[str, bool] = field(default_factory=dict)


def read_files(
    *,
    connections: Path | None = None,
    variables: Path | None = None,
    pools: Path | None = None,
    dags: Path | None = None,
) -> AirflowSource:
    """Return what export files hold.

    Args:
        connections: A file of `airflow connections export`.
        variables: A file of `airflow variables export`.
        pools: A file of `airflow pools export`.
        dags: The output of `airflow dags list -o json`.

    Raises:
        ConfigError: A file cannot be read.
        InvalidInput: A file is not such an export.
    """
    return AirflowSource(
        read_connections(connections) if connections else {},
        read_variables(variables) if variables else {},
        read_pools(pools) if pools else {},
        read_paused(dags) if dags else {},
    )
