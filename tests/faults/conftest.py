"""Rounds of the fault matrix."""

import os
import secrets

import msgspec
import pytest
from fault_rounds import Account


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
def note_account(request):
    """Note in `.work/faults.jsonl` what a round showed."""
    report = request.config.rootpath / ".work" / "faults.jsonl"
    report.parent.mkdir(exist_ok=True)

    def note(account: Account):
        print(account)
        with report.open("ab") as file:
            file.write(msgspec.json.encode(account) + b"\n")

    return note
