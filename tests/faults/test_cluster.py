"""A cluster of three NATS servers, Postgres with a synchronous standby, and three daemons.

Each part is killed, frozen, cut off and slow, and Postgres fails over, under load. `CLUSTER_FAULTS`
plays some faults alone, by name, separated by commas.
"""

import os

import pytest

from support.cluster.faults import FAULTS
from support.cluster.network import Loopback, Namespaces, can_separate
from support.cluster.rounds import ClusterReport, run_cluster

pytestmark = [pytest.mark.anyio, pytest.mark.soak]

TAKEOVER_SECONDS = 10.0
ELECTION_SECONDS = 20.0
"""The same when a leader of NATS is gone: its peers elect others, and a sweeper sends again what
was sent meanwhile.
"""
LEADERS = (
    *("kill a leading nats", "freeze a leading nats"),
    "cut a leading nats from its peers",
)
ROUNDS = 5
NAMES = tuple(filter(None, os.environ.get("CLUSTER_FAULTS", "").split(",")))


def longest_seconds(fault: str) -> float:
    return ELECTION_SECONDS if fault in LEADERS else TAKEOVER_SECONDS


def check_report(report: ClusterReport):
    assert report.epochs == 0, report
    late = [step for step in report.steps if step.takeover_seconds > longest_seconds(step.fault)]
    assert not late, late


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
@pytest.mark.parametrize("network", [Loopback, Namespaces])
async def test_a_cluster_survives(network, number, seed, tmp_path, record_report):
    if network.separate and not can_separate():
        pytest.skip("this machine gives no networks of their own: it takes root, ip and nft")
    names = [name for name in NAMES if network.separate or not FAULTS[name].separate]
    report = await run_cluster(network, seed=seed + number, folder=tmp_path, names=tuple(names))
    record_report(report)
    check_report(report)
