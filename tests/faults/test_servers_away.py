"""A server is away for ten seconds: daemons wait, say so once, and go on."""

from collections import Counter
from pathlib import Path

import anyio
import pytest

from support.faults.daemons import DaemonProcess
from support.faults.rounds import OutageReport, run_outage

pytestmark = pytest.mark.anyio

MOMENTS = 5
WARNINGS = 3
"""One each of the manager, the triggerer and the tokens."""
BUSY = ("worker.loop_blocked", "bus.publish_timed_out", "sweeper.tasks_republished")
"""What a machine that is busy with other rounds makes a daemon warn of, without an outage, too."""


def check_postgres_away(outage: OutageReport):
    """Callers get 503 with Retry-After, and succeed later."""
    assert not outage.accepted
    assert set(outage.refusals) == {(503, "1")}
    for member in outage.members:
        check_log(member, "manager.store_away", "manager.store_back")


def check_nats_away(outage: OutageReport):
    """Callers notice nothing."""
    assert outage.accepted
    assert outage.refusals == []
    for member in outage.members:
        check_log(member, "bus.disconnected", "bus.reconnected")


def check_log(member: DaemonProcess, away: str, back: str):
    assert len(member.logged(away)) == 1
    assert len(member.logged(back)) == 1
    said = Counter(warning["event"] for warning in member.warnings())
    for event in BUSY:
        del said[event]
    assert said.total() <= WARNINGS, said


def part_of(folder: Path, name: str) -> Path:
    part = folder / name
    part.mkdir()
    return part


CHECKS = {"postgres": check_postgres_away, "nats": check_nats_away}


async def test_servers_away(seed, tmp_path, record_report):
    """Two daemons without Postgres, and beside them two without NATS."""

    async def run(server: str):
        folder = part_of(tmp_path, server)
        outage = await run_outage(server, "two", seed=seed, folder=folder)
        record_report(outage.report)
        CHECKS[server](outage)

    async with anyio.create_task_group() as group:
        group.start_soon(run, "postgres")
        group.start_soon(run, "nats")


@pytest.mark.soak
@pytest.mark.parametrize("server", CHECKS)
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_servers_away_at_any_moment(server, daemons, moment, seed, tmp_path, record_report):
    outage = await run_outage(server, daemons, seed=seed, folder=tmp_path)
    record_report(outage.report)
    CHECKS[server](outage)
