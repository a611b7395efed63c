"""What async tasks of one process change in it reaches none that begins later."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.runner.output import TaskOutput
from pubsubflow.runner.process_state import Patches, ProcessState
from pubsubflow.runner.shared_state import SharedState

NAME = "PUBSUBFLOW_TEST_LEFT"


def output(number):
    return TaskOutput(lambda _: None, lambda _: None, number=number)


def told(one):
    return [json.loads(line)["m"] for line in one.take().splitlines()]


@pytest.fixture
def left():
    return []


@pytest.fixture
def start(left):
    """Take the state: in the test, as pytest changes the environment between set-up and call."""
    before = ProcessState(alone=True)
    yield lambda: SharedState(left.append)
    before.restore()


def test_what_a_task_that_ran_alone_has_changed_is_named_and_undone(start, left, tmp_path):
    shared = start()
    here, task = Path.cwd(), output(1)
    assert shared.begin([])
    os.chdir(tmp_path)
    os.umask(0o027)
    os.environ[NAME] = "1"
    shared.end(task, [task])
    assert (Path.cwd(), os.environ.get(NAME)) == (here, None)
    (line,) = told(task)
    assert line.endswith("process: working directory, environment, umask; that is undone")
    assert shared.begin([])
    assert left == []


def test_a_change_beside_others_is_told_to_all_and_ends_the_process(start, left):
    shared = start()
    one, two = output(1), output(2)
    assert shared.begin([])
    assert shared.begin([one])
    os.environ[NAME] = "1"
    assert not shared.begin([one, two])
    assert not shared.begin([])
    for each in (one, two):
        (line,) = told(each)
        assert "by this task or one of 1 beside it: environment" in line
    shared.end(two, [two, one])
    shared.end(one, [one])
    assert told(one) == told(two) == []
    assert left == [1]


def test_who_was_alone_since_the_last_look_is_named_also_when_others_have_run(start, left):
    shared = start()
    one, two = output(1), output(2)
    shared.begin([])
    shared.begin([one])
    shared.end(one, [one, two])
    shared.end(two, [two])
    shared.begin([])
    os.environ[NAME] = "1"
    shared.end(one, [one])
    assert told(one) == ["the task changed for the whole process: environment; that is undone"]
    assert left == []


def test_what_is_looked_at_only_at_the_end_is_nobodys_after_others_ran(start):
    shared = start()
    one, two = output(1), output(2)
    shared.begin([])
    shared.begin([one])
    os.umask(0o027)
    shared.end(one, [one, two])
    shared.end(two, [two])
    assert told(one) == []
    (line,) = told(two)
    assert line.startswith(
        "the task or one that ran beside it changed for the whole process: umask"
    )


def test_a_process_with_a_replaced_function_runs_no_further_task(start, left, monkeypatch):
    shared = start()
    task = output(3)
    shared.begin([])
    monkeypatch.setattr(time, "sleep", lambda _: None)
    shared.end(task, [task])
    (line,) = told(task)
    assert "replaced for the whole process: time.sleep; no further task" in line
    assert not shared.begin([])
    assert left == [3]


def test_what_an_import_sets_is_kept(start, left):
    shared = start()
    task = output(1)
    shared.begin([])
    os.environ[NAME] = "1"
    shared.rebase()
    shared.end(task, [task])
    assert os.environ[NAME] == "1"
    assert told(task) == left == []


def test_counters_and_tables_of_modules_are_no_patches():
    patches = Patches()
    json.dumps({"a": [1]})
    os.environ.get("PATH")
    time.time()
    assert patches.changes() == []


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "change"]), st.integers(0, 3))))
def test_no_task_begins_in_a_process_that_another_has_changed(steps):
    before = ProcessState(alone=True)
    left: list[int] = []
    shared, running = SharedState(left.append), {}
    try:
        for step, number in steps:
            if step == "begin" and number not in running:
                begun = shared.begin(list(running.values()))
                assert not (begun and NAME in os.environ)
                assert begun != bool(left)
                if begun:
                    running[number] = output(number)
            elif step == "end" and number in running:
                ended = running.pop(number)
                shared.end(ended, [ended, *running.values()])
                assert running or NAME not in os.environ or left
            elif step == "change" and number in running:
                os.environ[NAME] = str(number)
        assert len(left) <= 1
    finally:
        before.restore()


@pytest.fixture
def patches():
    return Patches()


def test_a_function_is_found_replaced_until_it_is_put_back(patches):
    then = time.sleep
    try:
        time.sleep = print
        assert patches.changes() == patches.changes() == ["time.sleep"]
    finally:
        time.sleep = then
    assert patches.changes() == patches.changes() == []


def test_what_is_added_to_a_module_does_not_hide_what_is_replaced_later(patches, monkeypatch):
    monkeypatch.setattr(time, NAME, 1, raising=False)
    assert patches.changes() == []
    monkeypatch.setitem(vars(os), "getpid", print)
    assert patches.changes() == ["os.getpid"]
