"""A cluster of three NATS servers, Postgres with a synchronous standby, and three daemons.

Each part is killed, frozen, cut off and slow, and Postgres fails over, under load. `CLUSTER_FAULTS`
plays some faults alone, by name, separated by commas.
"""

import os

import pytest

from support.cluster.faults import FAULTS
from support.cluster.network import Loopback, Namespaces, can_separate
from support.cluster.rounds import ClusterReport, Step, run_cluster

pytestmark = [pytest.mark.anyio, pytest.mark.soak]

TAKEOVER_SECONDS = 10.0
AFTER_ELECTIONS_SECONDS = 3.0
"""When a leader of NATS is gone, its peers elect others, which may take longer by itself."""
ROUNDS = 5
NAMES = tuple(filter(None, os.environ.get("CLUSTER_FAULTS", "").split(",")))


def is_late(step: Step) -> bool:
    after_elections = step.takeover_seconds - step.elected_seconds
    return step.takeover_seconds > TAKEOVER_SECONDS and after_elections > AFTER_ELECTIONS_SECONDS


def check_report(report: ClusterReport):
    assert report.epochs == 0, report
    late = [step for step in report.steps if is_late(step)]
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
