"""Goals of `make bench`: which figures decide them, and the table of them."""

import io
import json
from pathlib import Path

from rich.console import Console

from benchmarks.__main__ import SCENARIOS
from benchmarks.figures import figure
from benchmarks.goals import GOALS, Goal, of, scenarios, table
from benchmarks.report import newest_figures

PAGE = Path(__file__).parents[3] / "docs" / "contributing" / "benchmarks.md"
HOP = Goal("hop", "hot_path", ("hop, sync", "hop, async"))


def shown(figures, names=SCENARIOS):
    text = io.StringIO()
    Console(file=text, width=150).print(table(figures, names))
    return text.getvalue()


def test_make_bench_measures_every_goal():
    assert set(scenarios()) <= set(SCENARIOS)
    assert len(SCENARIOS) == len(set(SCENARIOS))


def test_a_goal_takes_the_figures_of_its_scenario_that_match():
    sync, other = figure("hop, sync", 2, "ms", target=3), figure("hops", 9, "ms", target=3)
    more = figure("hop, async", 4, "ms", target=3)
    assert of(HOP, {"hot_path": [sync, other, more], "load": [other]}) == [sync, more]


def test_a_goal_of_which_a_part_is_missing_is_not_measured():
    assert of(HOP, {"hot_path": [figure("hop, sync", 2, "ms", target=3)]}) is None
    assert of(HOP, {}) is None


def test_the_table_has_every_goal_and_says_whether_it_is_met():
    found = [figure("floor", 1.2, "ms", target=4)]
    found += [figure("hop_floor_ratio, sync", 1.9, "x", target=2)]
    found += [figure("hop_floor_ratio, async", 2.5, "x", target=2)]
    text = shown({"hot_path": found})
    lines = {line.split("│")[2].strip(): line for line in text.splitlines() if line.count("│") > 6}
    assert "1.9 x" in lines["hop_floor_ratio, sync"]
    assert "met" in lines["hop_floor_ratio, sync"]
    assert "missed" in lines["hop_floor_ratio, async"]
    for goal in GOALS:
        assert goal.text[:20] in text
    assert text.count("not measured") == len(GOALS) - 1
    assert "not measured: load" not in shown({}, ["hot_path"])


def test_the_newest_figures_of_each_scenario_come_from_all_runs(tmp_path):
    for moment, figures in (
        ("20261130-100000", {"idle": [1], "load": [1]}),
        ("20261130-110000", {"load": [2]}),
        ("paired-20261130-120000", {"load": [3]}),
    ):
        (tmp_path / f"{moment}.json").write_text(json.dumps({"figures": figures}))
    assert newest_figures(tmp_path) == {"idle": [1], "load": [2]}


def test_the_page_names_every_scenario_and_which_of_them_decide_goals():
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[0].startswith("`"):
            found |= {name.strip(" `"): cells[3] == "yes" for name in cells[0].split(",")}
    assert found == {name: name in scenarios() for name in SCENARIOS}
