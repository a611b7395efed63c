"""Setups and teardowns as they are written, and branches over groups."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from pubsubflow import (
    DAG,
    BashOperator,
    DefinitionError,
    EmptyOperator,
    LatestOnlyOperator,
    setup,
    task,
    task_group,
    teardown,
)
from pubsubflow.authoring.runtime.logger import TaskLogger

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def edges(made):
    return {
        task.task_id: sorted(made.to_spec("", "").tasks[node].task_id for node in task.upstream)
        for task in made.to_spec("", "").tasks
    }


def empty(name, **options):
    return EmptyOperator(task_id=name, **options)


@task
def step(*values):
    return values


def test_the_block_of_a_teardown_lies_between_it_and_its_setups():
    with DAG("d") as made:
        make, other = empty("make"), empty("other")
        with empty("drop").as_teardown(setups=[make, other], on_failure_fail_dagrun=True):
            empty("a") >> empty("b")
            empty("c")
    assert edges(made) == {
        "make": [], "other": [], "a": ["make", "other"], "b": ["a"], "c": ["make", "other"],
        "drop": ["b", "c", "make", "other"],
    }  # fmt: skip
    drop = made.to_spec("", "").tasks[-1]
    assert (drop.role, drop.trigger_rule, drop.fails_run) == (
        "teardown", "all_done_setup_success", True
    )  # fmt: skip
    assert [each.role for each in made.to_spec("", "").tasks[:2]] == ["setup", "setup"]


def test_the_other_ways_to_write_it():
    @setup
    def make():
        return 1

    @teardown(task_id="drop_it")
    def drop(value):
        return value

    with DAG("d") as made:
        with make() >> empty("drop").as_teardown():
            empty("a")
        with empty("only").as_setup():
            empty("b")
        made_here = make()
        with made_here >> drop(made_here) as end:
            inner = step()
            inner >> empty("inside")
        empty("after") << end
    found = edges(made)
    assert (found["a"], found["drop"], found["b"]) == (["make"], ["a", "make"], ["only"])
    assert found["step"] == ["make__1"]
    assert found["drop_it"] == ["inside", "make__1"]
    assert made.nodes["only"].role == "setup"


def test_what_follows_a_group_does_not_wait_for_its_teardown():
    with DAG("d") as made:
        with task_group("g") as group:
            make = empty("make")
            with empty("drop").as_teardown(setups=make):
                empty("work")
        group >> empty("next")
    assert edges(made)["next"] == ["g.work"]
    assert made.to_spec("", "").tasks[0].groups == ("g",)


def test_a_run_sets_up_works_and_cleans_up():
    def run_of(*failing):
        with DAG("d") as made:

            @task
            def act(name):
                if name in failing:
                    raise ValueError(name)
                return name

            make = act.override(task_id="make")("make")
            with act.override(task_id="drop")("drop").as_teardown(setups=make):
                act.override(task_id="work")("work")
        return made.test(raise_on_error=False)

    def states(result):
        return [str(result.states[name]) for name in ("make", "work", "drop")]

    assert states(run_of()) == ["success", "success", "success"]
    assert states(run_of("work")) == ["success", "failed", "success"]
    assert run_of("work").state == "failed"
    assert states(run_of("make")) == ["failed", "upstream_failed", "upstream_failed"]
    assert run_of("drop").state == "success"


def test_a_selected_task_brings_its_setup_and_teardown():
    with DAG("d") as made:
        make = step.override(task_id="make")()
        with step.override(task_id="drop")().as_teardown(setups=make):
            first = step.override(task_id="first")()
            first >> step.override(task_id="second")()
        step.override(task_id="apart")()
    assert list(made.test(select="second").tasks) == ["make", "second", "drop"]


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: empty("a").__enter__(), "only a setup or a teardown stands in `with`"),
        (lambda: empty("a").as_teardown(setups="make"), "setups='make' is not a task in a DAG"),
        (lambda: empty("a", trigger_rule="all_skiped"), "did you mean 'all_skipped'"),
    ],
)
def test_mistakes(mistake, says):
    with DAG("d"), pytest.raises(DefinitionError, match=says):
        mistake()


def test_a_branch_follows_a_group():
    def run_of(choice):
        with DAG("d") as made:

            @task.branch
            def choose():
                return choice

            with task_group("left") as left:
                empty("a") >> empty("b")
            with task_group("right") as right, task_group("inner"):
                empty("c")
            choose() >> [left, right]
        return made.test(raise_on_error=False)

    assert [str(run_of("left").states[name]) for name in ("left.a", "left.b", "right.inner.c")] == [
        "success", "success", "skipped"
    ]  # fmt: skip
    assert run_of("right.inner").states["right.inner.c"] == "success"
    error = run_of("middle").tasks["choose"][0].error.message
    assert "choose one of: left.a, right.inner.c, left, right, right.inner" in error


@pytest.mark.parametrize(
    ("kind", "tick", "overtaken"),
    [
        ("cron", NOON, False),
        ("cron", NOON - timedelta(hours=12), False),
        ("cron", NOON - timedelta(hours=13), True),
        ("backfill", NOON - timedelta(days=9), True),
        ("manual", NOON - timedelta(days=9), False),
        ("dataset", None, False),
    ],
)
def test_latest_only(kind, tick, overtaken):
    run = SimpleNamespace(kind=kind, logical_time=tick)
    ctx = SimpleNamespace(run=run, now=lambda: NOON, log=TaskLogger(lambda *_: None))
    with DAG("d", schedule="@daily", start=NOON - timedelta(99)):
        only = LatestOnlyOperator(task_id="latest")
        only >> [empty("a"), empty("b")]
    assert only.execute(ctx) == ([] if overtaken else ["a", "b"])


def test_what_follows_runs_when_it_is_requested():
    with DAG("d", schedule="@daily") as made:
        LatestOnlyOperator(task_id="latest") >> BashOperator(task_id="tell", bash_command="true")
    assert made.test().states["tell"] == "success"
