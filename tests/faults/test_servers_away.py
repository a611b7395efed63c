"""A server is away for ten seconds: daemons wait, say so once, and go on."""

import pytest
from fault_rounds import play_absence

pytestmark = pytest.mark.anyio

MOMENTS = 5
WARNINGS = 3
"""More in ten seconds would be a flood."""


async def check_postgres_away(daemons, seed, folder, note_account):
    absence = await play_absence("postgres", daemons, seed=seed, folder=folder)
    note_account(absence.account)
    assert not absence.accepted
    assert {status for status, _ in absence.refusals} == {503}
    assert {retry_after for _, retry_after in absence.refusals} == {"1"}
    for member in absence.members:
        assert len(member.facts("manager.store_away")) == 1
        assert len(member.facts("manager.store_back")) == 1
        assert len(member.complaints()) <= WARNINGS


async def check_nats_away(daemons, seed, folder, note_account):
    absence = await play_absence("nats", daemons, seed=seed, folder=folder)
    note_account(absence.account)
    assert absence.accepted
    assert absence.refusals == []
    for member in absence.members:
        assert len(member.facts("bus.disconnected")) == 1
        assert len(member.facts("bus.reconnected")) == 1
        assert len(member.complaints()) <= WARNINGS


async def test_postgres_away(seed, tmp_path, note_account):
    await check_postgres_away("two", seed, tmp_path, note_account)


async def test_nats_away(seed, tmp_path, note_account):
    await check_nats_away("two", seed, tmp_path, note_account)


@pytest.mark.soak
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
@pytest.mark.parametrize("daemons", ["one", "two"])
async def test_postgres_away_at_any_moment(daemons, moment, seed, tmp_path, note_account):
    await check_postgres_away(daemons, seed, tmp_path, note_account)


@pytest.mark.soak
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
@pytest.mark.parametrize("daemons", ["one", "two"])
async def test_nats_away_at_any_moment(daemons, moment, seed, tmp_path, note_account):
    await check_nats_away(daemons, seed, tmp_path, note_account)
