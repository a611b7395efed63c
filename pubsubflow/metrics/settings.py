"""Metrics settings: labels, the age of cluster metrics, and a port for scrapes."""

from msgspec import Struct

from pubsubflow.model.ranges import Port, SecondsOrNone


class MetricsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `/metrics`.

    Attributes:
        dag_labels: Whether metrics of runs and tasks have a label `dag_id`: a series for each DAG
            and state, so only for some hundreds of DAGs.
        refresh_seconds: Age at which a scrape reads the metrics of the cluster again from Postgres
            and JetStream.
        host: Address to listen on for scrapes alone.
        port: TCP port to listen on for scrapes alone, for daemons without the role `api`, which
            serves `/metrics` by itself; 0 for none.
        token: Bearer token for scrapes; may be empty only while the host is this machine's alone.
    """

    dag_labels: bool = False
    refresh_seconds: SecondsOrNone = 5.0
    host: str = "127.0.0.1"
    port: Port = 0
    token: str = ""

    def __repr__(self) -> str:
        token = "***" if self.token else ""
        return (
            f"MetricsSettings(dag_labels={self.dag_labels}, refresh_seconds={self.refresh_seconds},"
            f" host={self.host!r}, port={self.port}, token={token!r})"
        )
