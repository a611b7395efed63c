"""Benchmarks measure what they say, also after what they fill or start has changed.

Each scenario runs here with the smallest numbers; its figures mean nothing then.
"""

import importlib

import pytest

from benchmarks.__main__ import SCENARIOS

SMALL = {
    "pending": {
        "PENDING": 20, "EVENTS": 500, "RUNS": 100, "SUBSCRIBERS": 5, "OTHER_DAGS": 20,
        "OTHER_DATASETS": 2, "MATCHING": 2, "POSTS": 1,
    },
    "large_dags": {"SIZES": (100, 200), "ROUNDS": 1},
    "hop_costs": {
        "CHAINS": 1, "SINGLE": 2, "RATE": 50, "LOAD_SECONDS": 1, "WARM_UP_SECONDS": 1,
    },
    "hot_path": {"PAIRS": 20, "BLOCK": 10, "REPETITIONS": 1},
    "calls": {"CALLS": 5, "_WARM_UP": 1},
    "throughput": {"RUNS": 10, "REPETITIONS": 1},
    "deadlines": {"MANY": 20, "SPREAD_SECONDS": 2.0},
    "edits": {"FILES": 3, "EDITS": 1},
    "files": {"FILES": 3, "MANY": 6},
    "stream": {"CLIENTS": 3, "ROUNDS": 1},
    "mapped": {"NEIGHBOURS": 3},
    "large_values": {"LINES": 100, "ROUNDS": 2},
    "idle": {"IDLE_SECONDS": 1, "SETTLE_SECONDS": 1},
    "commands": {"TIMES": 1},
}  # fmt: skip
"""Scenario → its numbers in small."""
ALWAYS = ("pending", "large_dags")
"""Those that start no daemon."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.soak) for name in SMALL]
)
def test_a_scenario_returns_its_figures(name, monkeypatch):
    assert name in SCENARIOS
    module = importlib.import_module(f"benchmarks.{name}")
    for constant, value in SMALL[name].items():
        assert type(getattr(module, constant)) is type(value), constant
        monkeypatch.setattr(module, constant, value)
    figures = module.run()
    assert figures
    for each in figures:
        assert {"name", "value", "unit"} <= each.keys()
