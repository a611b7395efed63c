"""Adapters of the peers, one a module; `PEERS` names them."""

from benchmarks.peers.adapters.airflow import Airflow
from benchmarks.peers.adapters.dagster import Dagster
from benchmarks.peers.adapters.dbos import Dbos
from benchmarks.peers.adapters.prefect import Prefect
from benchmarks.peers.adapters.procrastinate import Procrastinate
from benchmarks.peers.adapters.pubsubflow import Pubsubflow
from benchmarks.peers.adapters.temporal import Temporal
from benchmarks.peers.peer import Peer

PEERS: dict[str, type[Peer]] = {
    each.name: each
    for each in (Pubsubflow, Airflow, Prefect, Dagster, Temporal, Dbos, Procrastinate)
}
