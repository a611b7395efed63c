"""Results by key, variables, templates and state, through a whole daemon and the command line."""

import json
import time

import pytest


@pytest.fixture
def ended(psf):
    """Trigger a DAG, wait for the end of its run, and return the run's id."""

    def trigger(dag):
        done = psf("dags", "trigger", dag, "--wait", "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)["run_id"]

    return trigger


@pytest.fixture
def shown(psf):
    def show(run, task):
        return json.loads(psf("tasks", "show", run, task, "--json").out)

    return show


def test_keys_variables_and_templates_reach_the_tasks(psf, ended, shown):
    assert psf("variables", "set", "limit", "7").code == 0
    secret = psf(
        *("connections", "set", "outside", "--uri", "postgres://ann@db.example.com/sales"),
        *("--secret", "password=env:THE_PASSWORD"),
        THE_PASSWORD="hush-hush",
    )
    assert secret.code == 0
    run = ended("keyed")
    split = shown(run, "split")
    assert (split["result"], split["results"]) == ({"good": 3, "bad": 0}, {"extra": [1]})
    assert shown(run, "chained")["result"] == [3, [1]]
    assert shown(run, "further")["result"] == [3, [1], [1], 0]
    assert shown(run, "fail")["results"] == {"a": "left"}
    assert shown(run, "summarise")["result"] == [5, 3, "monday", "7", "left"]
    assert shown(run, "gather")["result"] == [[2, 4], 4]
    shell = shown(run, "shell")
    day, *rest = shell["rendered"]["bash_command"].removeprefix("echo ").split()
    assert (len(day), rest) == (10, ["7", "db.example.com", "***", "3"])
    assert shell["result"].endswith(" 7 db.example.com hush-hush 3")
    text = psf("tasks", "show", run, "split").out
    assert "result 'extra'" in text
    assert "[1]" in text


def test_another_dags_results_are_pulled(ended, shown):
    ended("keyed_ok")
    assert shown(ended("reader"), "read")["result"] == [4, "none"]


def test_runs_side_by_side_lose_no_change_of_the_state(psf, shown):
    started = [psf("dags", "trigger", "counting", "--json") for _ in range(6)]
    runs = [json.loads(each.out)["run_id"] for each in started]
    for run in runs:
        assert psf("runs", "wait", run).code == 0
        assert shown(run, "after")["result"] is True
    assert sorted(shown(run, "add")["result"] for run in runs) == [1, 2, 3, 4, 5, 6]
    (value,) = json.loads(psf("dags", "state", "counting", "--json").out)
    assert (value["value"], value["task_id"]) == (6, "add")
    assert psf("dags", "state", "counting", "n", "--set", "10").code == 0
    assert "10" in psf("dags", "state", "counting").out
    assert psf("dags", "state", "counting", "n", "--reset").code == 0
    assert "no state" in psf("dags", "state", "counting").out
    assert psf("dags", "state", "counting", "n").code == 2


def test_secret_variables_never_show(psf):
    refused = psf("variables", "set", "crm_token", "hush-hush")
    assert (refused.code, "lists of processes" in refused.err) == (2, True)
    assert psf("variables", "set", "crm_token", "--source", "env:X", X="hush-hush").code == 0
    for arguments in (["get", "crm_token"], ["list"], ["export"], ["list", "--json"]):
        out = psf("variables", *arguments).out
        assert "***" in out
        assert "hush" not in out


def test_a_variable_that_the_graph_depends_on_loads_the_file_anew(psf, ended, shown):
    def tasks():
        return json.loads(psf("dags", "show", "by_region", "--json").out)["tasks"]

    assert tasks() == 1
    assert shown(ended("by_region"), "load_eu")["result"] == ["eu", None]
    assert psf("variables", "set", "regions", '["eu", "us"]').code == 0
    give_up_at = time.monotonic() + 30
    while tasks() != 2:
        assert time.monotonic() < give_up_at
    assert shown(ended("by_region"), "load_us")["result"] == ["us", ["eu", "us"]]
