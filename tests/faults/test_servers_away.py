"""A server is away for ten seconds: daemons wait, say so once, and go on."""

from pathlib import Path

import anyio
import pytest
from fault_daemons import Member
from fault_rounds import Absence, play_absence

pytestmark = pytest.mark.anyio

MOMENTS = 5
WARNINGS = 3
"""More in ten seconds would be a flood."""


def check_postgres_away(absence: Absence):
    """Callers are asked to come again, and do."""
    assert not absence.accepted
    assert set(absence.refusals) == {(503, "1")}
    for member in absence.members:
        check_log(member, "manager.store_away", "manager.store_back")


def check_nats_away(absence: Absence):
    """Callers notice nothing."""
    assert absence.accepted
    assert absence.refusals == []
    for member in absence.members:
        check_log(member, "bus.disconnected", "bus.reconnected")


def check_log(member: Member, away: str, back: str):
    assert len(member.facts(away)) == 1
    assert len(member.facts(back)) == 1
    assert len(member.complaints()) <= WARNINGS


def part_of(folder: Path, name: str) -> Path:
    part = folder / name
    part.mkdir()
    return part


CHECKS = {"postgres": check_postgres_away, "nats": check_nats_away}


async def test_servers_away(seed, tmp_path, note_account):
    """Two daemons without Postgres, and beside them two without NATS."""

    async def play(server: str):
        folder = part_of(tmp_path, server)
        absence = await play_absence(server, "two", seed=seed, folder=folder)
        note_account(absence.account)
        CHECKS[server](absence)

    async with anyio.create_task_group() as group:
        group.start_soon(play, "postgres")
        group.start_soon(play, "nats")


@pytest.mark.soak
@pytest.mark.parametrize("server", CHECKS)
@pytest.mark.parametrize("daemons", ["one", "two"])
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
async def test_servers_away_at_any_moment(server, daemons, moment, seed, tmp_path, note_account):
    absence = await play_absence(server, daemons, seed=seed, folder=tmp_path)
    note_account(absence.account)
    CHECKS[server](absence)
