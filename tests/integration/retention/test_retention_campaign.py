"""Events at speed, kept for seconds: the size is flat, and no hop waits for what is removed."""

import os
import secrets

import msgspec
import pytest

from support.faults.retention import Campaign
from support.harness import running_managers

pytestmark = pytest.mark.anyio
SOAK_EVENTS = int(os.environ.get("RETENTION_EVENTS") or 5_000_000)
SOAK_RATE = int(os.environ.get("RETENTION_RATE") or 2500)
SOAK_KEPT_SECONDS = float(os.environ.get("RETENTION_SECONDS") or 60)


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("FAULT_SEED") or secrets.randbits(32))
    print(f"repeat it with FAULT_SEED={chosen}")
    return chosen


@pytest.fixture
async def harness(database, bus, nats):
    async with running_managers(database, bus, nats) as harness:
        yield harness


def check(report, kept_seconds: float) -> None:
    sizes = report.sizes
    third = len(sizes) // 3
    assert third >= 3, "too short to show anything"
    # From when the first slices are due; the rest may swing by a slice or two.
    assert max(sizes[-third:]) <= max(sizes[third:-third]) * 1.35, sizes
    # A slice and a half more than what is kept, at most.
    assert report.left_events < report.rate * kept_seconds * 1.5 + 10_000
    # The medians: other work on the machine is in the rest.
    assert report.hops_after[0] <= report.hops_before[0] * 2 + 100


async def test_the_size_is_flat_and_no_hop_waits(harness, postgres, seed, monkeypatch):
    monkeypatch.setattr("pubsubflow.store.slices.SLICE_LEFT_ALONE_SECONDS", 1.0)
    monkeypatch.setattr("pubsubflow.manager.persistence.load._BLOCK_SECONDS", 0.5)
    campaign = Campaign(harness, postgres.url, kept_seconds=2, rate=2000, seed=seed)
    report = await campaign.run(events=30_000, before=4_000)
    print(report)
    check(report, 2)


@pytest.mark.soak
async def test_the_size_is_flat_over_millions_of_events(harness, postgres, seed, request):
    campaign = Campaign(
        harness, postgres.url, kept_seconds=SOAK_KEPT_SECONDS, rate=SOAK_RATE, seed=seed
    )
    report = await campaign.run(events=SOAK_EVENTS, before=100_000)
    path = request.config.rootpath / ".work" / "retention.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(report))
    print(report)
    check(report, SOAK_KEPT_SECONDS)
