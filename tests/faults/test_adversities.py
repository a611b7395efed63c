"""What tasks, people and machines do to a daemon: all that was accepted is there, once."""

import pytest

from support.faults.adversities import ADVERSITIES, CannotRunError, run_adversities

pytestmark = pytest.mark.anyio

ANYWHERE = ("children", "expressions", "files")
"""They need no root, and no package of the machine."""
SETS = {name: (name,) for name in ADVERSITIES} | {"all": tuple(ADVERSITIES)}
ROUNDS = 10
SECONDS = 5.0
"""For how long things go wrong in `make test`."""


async def test_what_goes_wrong_side_by_side(seed, tmp_path, record_report):
    report = await run_adversities(ANYWHERE, seed=seed, folder=tmp_path, seconds=SECONDS)
    record_report(report)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("names", SETS)
async def test_what_goes_wrong_at_any_moment(names, number, seed, tmp_path, record_report):
    try:
        report = await run_adversities(SETS[names], seed=seed + number, folder=tmp_path)
    except CannotRunError as error:
        pytest.skip(str(error))
    record_report(report)
