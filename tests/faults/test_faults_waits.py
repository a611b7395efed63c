"""Tasks that wait: whatever dies by `kill -9`, all go on, none twice, none lost."""

import anyio
import pytest

from support.faults.waits import run_waits

pytestmark = pytest.mark.anyio

FEW, MANY, ROUNDS = 60, 2000, 5
FAULTS = [
    ("daemon", "one"),
    ("daemon", "two"),
    ("nats", "two"),
    ("postgres", "two"),
    ("worker", "two"),
]


async def test_every_wait_goes_on_once(seed, tmp_path, record_report):
    """A daemon dies, and beside it another part, as the seed says: most of a round is waiting."""
    rounds = (FAULTS[0], FAULTS[1 + seed % (len(FAULTS) - 1)])

    async def run(fault: str, daemons: str):
        folder = tmp_path / f"{fault}-{daemons}"
        folder.mkdir()
        record_report(await run_waits(fault, daemons, waits=FEW, seed=seed, folder=folder))

    async with anyio.create_task_group() as group:
        for fault, daemons in rounds:
            group.start_soon(run, fault, daemons)


@pytest.mark.soak
@pytest.mark.parametrize(("fault", "daemons"), [*FAULTS, ("nats", "one"), ("postgres", "one")])
@pytest.mark.parametrize("number", range(ROUNDS))
async def test_every_one_of_many_waits_goes_on_once(
    fault, daemons, number, seed, tmp_path, record_report
):
    record_report(await run_waits(fault, daemons, waits=MANY, seed=seed + number, folder=tmp_path))
