"""Fault rounds: seeds and reports."""

import os
import secrets

import msgspec
import pytest

from support.faults.rounds import RoundReport


@pytest.fixture
def anyio_backend():
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
def seed() -> int:
    """Seed of all choices in a round; FAULT_SEED repeats a round."""
    chosen = int(os.environ.get("FAULT_SEED") or secrets.randbits(32))
    print(f"repeat it with FAULT_SEED={chosen}")
    return chosen


@pytest.fixture
def record_report(request):
    """Append the report of a round to `.work/faults.jsonl`."""
    path = request.config.rootpath / ".work" / "faults.jsonl"
    path.parent.mkdir(exist_ok=True)

    def record(report: RoundReport):
        print(report)
        with path.open("ab") as file:
            file.write(msgspec.json.encode(report) + b"\n")

    return record
