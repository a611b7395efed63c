"""Rounds of the fault matrix."""

import os
import secrets

import msgspec
import pytest
from fault_rounds import play


@pytest.fixture
def anyio_backend():
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
def seed() -> int:
    """Every choice of a round follows from it; FAULT_SEED plays a round again."""
    chosen = int(os.environ.get("FAULT_SEED") or secrets.randbits(32))
    print(f"play it again with FAULT_SEED={chosen}")
    return chosen


@pytest.fixture
def play_round(request, seed, tmp_path):
    """Play a round and note in `.work/faults.jsonl` what it showed."""

    async def played(fault: str, daemons: str, moments: int):
        account = await play(fault, daemons, moments=moments, seed=seed, folder=tmp_path)
        report = request.config.rootpath / ".work" / "faults.jsonl"
        report.parent.mkdir(exist_ok=True)
        with report.open("ab") as file:
            file.write(msgspec.json.encode(account) + b"\n")
        print(account)
        return account

    return played
