"""What an Airflow has is imported into a daemon: first a plan, then carried out, then nothing."""

import json

import pytest


@pytest.fixture
def files(tmp_path):
    contents = {
        "connections": {
            "af_dw": {"conn_type": "postgres", "host": "db", "login": "ann", "password": "p"}
        },
        "variables": {"af_limit": 7, "af_text": {"value": "x", "description": "a text"}},
        "pools": {"af_pool": {"slots": 3, "description": "", "include_deferred": False}},
        "dags": [
            {"dag_id": "keyed", "is_paused": "True"},
            {"dag_id": "gone", "is_paused": "False"},
        ],
    }
    given = []
    for name, content in contents.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        given += [f"--{name}", str(path)]
    return given


def test_an_import_is_planned_carried_out_and_repeated(psf, files):
    plan = psf("airflow", "import", *files)
    assert plan.code == 0, plan.err
    assert "5 to import: --apply carries it out" in plan.out
    assert psf("variables", "get", "af_limit").code != 0

    done = psf("airflow", "import", *files, "--apply", "--json")
    assert done.code == 0, done.err
    things = {each["name"]: each for each in done.json["things"]}
    assert done.json["applied"]
    assert things["keyed"]["action"] == "change"
    assert things["gone"]["action"] == "skip"
    try:
        assert psf("variables", "get", "af_limit").out.strip() == "7"
        shown = json.loads(psf("connections", "show", "af_dw", "--json").out)
        assert (shown["uri"], shown["secrets"]) == ("postgres://ann@db", {"password": "***"})
        pools = json.loads(psf("pools", "list", "--json").out)
        assert {"af_pool": 3}.items() <= {each["name"]: each["slots"] for each in pools}.items()
        assert json.loads(psf("dags", "show", "keyed", "--json").out)["paused"]
    finally:
        assert psf("dags", "unpause", "keyed").code == 0

    again = psf("airflow", "import", *files[2:6], "--json")
    assert {each["action"] for each in again.json["things"]} == {"same"}


def test_a_call_without_a_source(psf):
    assert psf("airflow", "import").code == 2
