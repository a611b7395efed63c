"""The examples of docs/waiting.md run."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "waiting.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def page():
    names = {"__name__": "page"}
    exec(compile("\n".join(CODE), PAGE, "exec"), names)
    return names


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "orders.csv"
    file.write_bytes(b"id,rows\n")
    return str(file)


def test_every_dag_is_tried(page):
    made = set(re.findall(r"^@dag.*\ndef (\w+)", "\n".join(CODE), re.MULTILINE))
    text = Path(__file__).read_text() + CODE[-1]
    assert {
        name for name in made if f"{name}.test(" not in text and f'"{name}"' not in text
    } == set()


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("load_orders", {"load": 8}),
        ("with_an_operator", {"load_file": 8}),
    ],
)
def test_files_are_waited_for(page, path, name, results):
    run = page[name].test({"path": path})
    assert {task_id: run.result(task_id) for task_id in run.tasks} == results


def test_tests_of_the_page_pass(page):
    tests = [made for name, made in page.items() if name.startswith("test_")]
    assert len(tests) == 3
    for run in tests:
        run()


def test_several_are_waited_for(page, path, tmp_path):
    made, orders, rates = page["orders_or_rates"], page["orders"], page["rates"]
    given = [(orders, {"rows": 2}), (rates, {"rows": 0}), (rates, {"rows": 3})]
    assert made.test({"path": path}, select="choose").result("choose") == "the file has 8 bytes"
    gone = {"path": str(tmp_path / "gone")}
    run = made.test(gone, events=given)
    assert (run.result("choose"), run.result("both")) == ("an event", 5)
    run = made.test(gone, select="choose")
    assert run.result("choose") == "six hours have passed"
    assert run.ended_at - run.started_at == timedelta(hours=6)


def test_steps_run_side_by_side(page):
    run = page["fetch_days"].test()
    assert run.result("fetch_all") == 39


@pytest.mark.parametrize(("rate", "result"), [("1.5", 1.5), ("much", 2.0)])
def test_failures_are_caught(page, rate, result):
    run = page["with_a_fallback"].test(events=[(page["rates"], {"rate": rate})])
    assert run.result("rate") == result


def test_sensors_wait(page, path):
    run = page["with_sensors"].test({"path": path}, events=[(page["orders"], {"rows": 4})])
    assert run.result("later") == 5
    assert run.result("arrived") == 8
    assert run.result("updates")["extra"] == {"rows": 4}
    assert run.ended_at - run.started_at == timedelta(minutes=5)


def test_a_sensor_looks(page):
    made = page["wait_for_rows"]
    assert made.test().result("load") == 42
