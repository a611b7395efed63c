"""Dask under load: its workers, its scheduler and the daemon are killed, each with -9.

All tasks of the fault matrix run on a Dask cluster; the checks are those of every round.
"""

import time

import msgspec
import pytest

from support.dask_cluster import DaskCluster
from support.faults.environment import ALL, Fault, Surroundings, open_environment
from support.faults.load import Load
from support.faults.rounds import finish_round, kill_under_load

pytestmark = [pytest.mark.anyio, pytest.mark.soak]

WORKERS = 3
FAULTS = ("worker", "worker alone", "scheduler", "daemon")
MOMENTS = 8


class DaskFaults:
    """Injects faults by chance, and starts what died.

    Attributes:
        injected: What was killed, in order.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        self.injected = []
        self.left = []

    def inject(self, environment):
        if not self.left:
            self.left = environment.chance.sample(FAULTS, len(FAULTS))
        kind = self.left.pop()
        self.injected.append(kind)
        if kind == "daemon":
            environment.members[0].kill()
        elif kind == "scheduler":
            self.cluster.kill_scheduler()
            self.cluster.start_scheduler()
            # Without a scheduler they end; a cluster's manager starts others.
            self.cluster.leave_workers()
            for number in range(WORKERS):
                self.cluster.start_worker(f"s{len(self.injected)}-{number}", threads=4)
        else:
            name = environment.chance.choice(sorted(self.cluster.workers))
            self.cluster.kill_worker(name, alone=kind == "worker alone")
            self.cluster.start_worker(f"w{len(self.injected)}", threads=4)


@pytest.mark.parametrize("number", range(1, 4))
async def test_nothing_is_lost_or_doubled(number, seed, tmp_path, record_report):
    began = time.monotonic()
    environ = {"FAULT_NOTES": str(tmp_path / "notes")}
    with DaskCluster.start(
        tmp_path / "dask", workers=WORKERS, environ=environ, threads=4
    ) as cluster:
        faults = DaskFaults(cluster)
        fault = Fault((ALL,), (ALL,), faults.inject)
        around = Surroundings(environ={"FAULT_DASK": cluster.address})
        async with open_environment(fault, "one", tmp_path, seed + number, around=around) as each:
            load = Load(each.members, each.chance, part=0.2)
            for _ in range(MOMENTS):
                await kill_under_load(each, load, fault)
            report = await finish_round(each, load, "dask", "one", seed + number)
    assert report.runs >= MOMENTS * load.runs
    seconds = round(time.monotonic() - began, 3)
    record_report(msgspec.structs.replace(report, seconds=seconds))
