"""Tasks that wait: whatever dies by `kill -9`, all go on, none twice, none lost."""

import pytest

from support.faults.waits import run_waits

pytestmark = pytest.mark.anyio

MANY, ROUNDS = 2000, 5
FAULTS = [
    ("daemon", "one"),
    ("daemon", "two"),
    ("nats", "two"),
    ("postgres", "two"),
    ("worker", "two"),
]


@pytest.mark.soak
@pytest.mark.parametrize(("fault", "daemons"), [*FAULTS, ("nats", "one"), ("postgres", "one")])
@pytest.mark.parametrize("number", range(ROUNDS))
async def test_every_one_of_many_waits_goes_on_once(
    fault, daemons, number, seed, tmp_path, record_report
):
    record_report(await run_waits(fault, daemons, waits=MANY, seed=seed + number, folder=tmp_path))
