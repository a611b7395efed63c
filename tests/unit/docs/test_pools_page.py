"""The examples of docs/pools.md and docs/runs.md are what users can type."""

import re
from pathlib import Path

import pytest

from pubsubflow.cli.main import make_app

DOCS = Path(__file__).parents[3] / "docs"
POOLS, RUNS = ((DOCS / name).read_text() for name in ("pools.md", "runs.md"))


def test_the_dag_runs_under_its_limits():
    names = {"__name__": "page"}
    exec("\n".join(re.findall(r"```python\n(.*?)```", POOLS, re.DOTALL)), names)
    nightly = names["nightly"]
    assert nightly.test().state == "success"


@pytest.mark.parametrize("line", re.findall(r"^\$ pubsubflow (.*)$", POOLS + RUNS, re.MULTILINE))
def test_every_command_is_one(line):
    make_app().parse_args(line.split(), print_error=False, exit_on_error=False)
