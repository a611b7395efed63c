"""Limits and sensors through a daemon: what runs when, and what the commands say meanwhile."""

import re
import time
from datetime import datetime
from itertools import pairwise


def started(psf, run_id):
    tasks = psf("tasks", "list", run_id, "--json").json
    return sorted(datetime.fromisoformat(each["started_at"]) for each in tasks)


def test_a_rate_limit_spaces_starts(psf):
    run_id = psf("dags", "trigger", "limited", "--json").json["run_id"]
    assert psf("runs", "wait", run_id).code == 0
    moments = started(psf, run_id)
    gaps = [(after - before).total_seconds() for before, after in pairwise(moments)]
    # A start is a moment after its order: of two, the first may be the slower one.
    assert sum(gaps) > 2.5, gaps


def test_a_rate_limit_says_when_the_next_task_starts(psf):
    run_id = psf("dags", "trigger", "hourly", "--json").json["run_id"]
    waiting = psf("tasks", "list", run_id).out
    assert re.search(r"rate limit hourly: 1 per hour, next at \d\d:\d\d:\d\d UTC", waiting)
    assert "rate limit hourly" in psf("runs", "explain", run_id).out
    assert re.search(r"hourly +1 per hour +0 +1", psf("pools", "list").out)
    (rate,) = [each for each in psf("pools", "rates", "--json").json if each["name"] == "hourly"]
    assert (rate["waiting"], rate["burst"], rate["available"]) == (1, 1, 0)
    assert psf("runs", "cancel", run_id).code == 0


def test_a_sensor_looks_until_it_finds_and_shows_its_looks(psf, tmp_path):
    path = tmp_path / "arrived"
    run_id = psf("dags", "trigger", "looking", "-p", f"path={path}", "--json").json["run_id"]
    for _ in range(50):
        shown = psf("tasks", "list", run_id).out
        if found := re.search(r"its next look at \d\d:\d\d:\d\d UTC, looked (\d+) times", shown):
            break
    assert found, shown
    path.touch()
    assert psf("runs", "wait", run_id).code == 0
    tasks = {each["task_id"]: each for each in psf("tasks", "list", run_id, "--json").json}
    assert {name: each["state"] for name, each in tasks.items()} == {
        "look": "success",
        "never": "skipped",
        "after": "success",
    }
    assert tasks["look"]["attempt"] == 1
    assert psf("tasks", "show", run_id, "look", "--json").json["result"] == "arrived"


def test_mapping_over_parts_functions_and_dicts(psf):
    run_id = psf("dags", "trigger", "mapped", "--wait", "--json").json["run_id"]
    shown = psf("tasks", "show", run_id, "gather", "--json").json["result"]
    assert shown == [[[6, "EUR"], [4, "USD"]], ["rows", "rates"]]


def test_a_mapped_group_goes_index_by_index(psf):
    assert psf("pools", "set", "narrow", "1").code == 0
    run_id = psf("dags", "trigger", "grouped", "--json").json["run_id"]
    psf("runs", "wait", run_id)
    tasks = psf("tasks", "list", run_id, "--json").json
    found = {(each["task_id"], each["map_index"]): each for each in tasks}
    stored = [found["each.store", index]["state"] for index in range(3)]
    assert stored == ["success", "upstream_failed", "success"]
    assert [found["each.load", index]["attempt"] for index in range(3)] == [2, 1, 1]
    assert [found["each.load", index]["map_name"] for index in (0, 2)] == ["row 1", "row 3"]
    assert "each.load.2 row 3" in psf("tasks", "list", run_id).out
    shown = psf("tasks", "show", run_id, "gather", "--json").json["result"]
    assert shown == [[1, 10, 5, "1"], [3, 30, 5, "3"]]
    one = psf("tasks", "show", run_id, "each.store", "--map-index", "2", "--json").json
    assert one["result"] == [3, 30, 5, "3"]
    events = psf("datasets", "events", "memory://grouped", "--json").json
    assert sorted(each["map_index"] for each in events) == [0, 2]
    assert "(mapped group each)" in psf("dags", "show", "grouped").out
    drawn = psf("dags", "graph", "grouped", "--format", "mermaid", "--run", run_id).out
    assert re.search(r'subgraph g\d\["each: each element"\]\n +t\d\["each.load<br>', drawn)
    clear = ("tasks", "clear", run_id, "each.load", "--map-index", "2", "--downstream", "--yes")
    assert psf(*clear).out.splitlines()[-1].startswith("3 cleared")
    psf("runs", "wait", run_id)
    again = psf("tasks", "list", run_id, "--map-index", "2", "--json").json
    attempts = {each["task_id"]: (each["state"], each["attempt"]) for each in again}
    assert attempts["each.load"] == attempts["each.store"] == ("success", 2)
    stays = psf("tasks", "list", run_id, "--map-index", "0", "--json").json
    assert sorted(each["attempt"] for each in stays) == [1, 1, 2]


def test_explain_says_what_an_index_of_a_group_waits_for(psf):
    run_id = psf("dags", "trigger", "waiting_group", "--json").json["run_id"]
    for _ in range(50):
        shown = psf("runs", "explain", run_id).out
        if "waits for each.first.1" in shown:
            break
    assert "task each.second.1 waits for each.first.1" in shown
    assert psf("runs", "cancel", run_id).code == 0


def test_a_limit_of_runs_says_what_waits_and_starts_it_when_it_goes(psf):
    assert "1 slots used" in psf("pools", "set", "runs:tag:crowd", "1").out
    runs = [psf("dags", "trigger", "waiting_group", "--json").json["run_id"] for _ in range(2)]
    assert "tag crowd: 1 of 1 runs active" in psf("runs", "show", runs[1]).out
    explained = psf("runs", "explain", runs[1]).out
    assert "it waits for tag crowd: 1 of 1 runs active" in explained
    assert re.search(r"runs:tag:crowd +1 +1 +1", psf("pools", "list").out)
    assert psf("pools", "delete", "runs:tag:crowd").code == 0
    deadline = time.monotonic() + 60
    while psf("runs", "show", runs[1], "--json").json["state"] != "running":
        assert time.monotonic() < deadline
    for run_id in runs:
        assert psf("runs", "cancel", run_id).code == 0
