"""`select=` picks tasks and their neighbours, `results=` stands in for those that do not run."""

from itertools import pairwise

import pytest

from pubsubflow import DAG, Context, EmptyOperator, task
from pubsubflow.errors import InvalidInput


def line():
    """A line a → b → c → d → e, with x beside."""
    with DAG("line") as made:
        nodes = [EmptyOperator(task_id=name) for name in "abcde"]
        for before, after in pairwise(nodes):
            before >> after
        EmptyOperator(task_id="x") >> nodes[2]
    return made


@pytest.mark.parametrize(
    ("select", "picked"),
    [
        ("c", "c"),
        ("+c", "bcx"),
        ("c+", "cd"),
        ("++c", "abcx"),
        ("c++", "cde"),
        ("+c+", "bcdx"),
        ("*c", "abcx"),
        ("c*", "cde"),
        ("*c+", "abcdx"),
        ("a, e", "ae"),
        (["a", "x+"], "acx"),
        ("*", "abcdex"),
        (None, "abcdex"),
        ("+++++++c", "abcx"),
    ],
)
def test_terms(select, picked):
    assert sorted(line().test(select=select).tasks) == list(picked)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("monthly", "has no task 'monthly'; known: a, b, c, d, e, x"),
        ("a b", "'a b' is not a selection"),
        ("a,", "'' is not a selection"),
        ("-a", "no task '-a'"),
        ("+*a", "is not a selection"),
    ],
)
def test_bad_terms(select, message):
    with pytest.raises(InvalidInput) as caught:
        line().test(select=select)
    assert message in str(caught.value)


def pipeline():
    with DAG("pipeline") as made:

        @task
        def extract():
            return [1, 2, 3]

        @task
        def double(x):
            return 2 * x

        @task
        def add(values, first):
            return sum(values) + first

        @task
        def tell(total, ctx: Context):
            return [total, ctx.result("extract")]

        extracted = extract()
        tell(add(double.expand(x=extracted), extracted[0]))
    return made


def test_selected_tasks_take_given_results():
    run = pipeline().test(select="add", results={"double": [5, 6], "extract": [7]})
    assert run.result("add") == 18
    assert list(run.tasks) == ["add"]


def test_mapping_over_a_given_list():
    assert pipeline().test(select="double", results={"extract": (4, 5)}).result("double") == [8, 10]


def test_what_is_given_does_not_run():
    run = pipeline().test(results={"extract": [10]})
    assert run.result("tell") == [30, [10]]
    assert "extract" not in run.tasks


@pytest.mark.parametrize(
    ("select", "results", "message"),
    [
        ("add", {"double": [1]}, "the result of task 'extract' is needed"),
        ("double", {}, "mapped over the result of 'extract'"),
        ("double", {"extract": 5}, "mapped over the result of 'extract'"),
        ("tell", {"add": 3}, "the result of task 'extract' is needed"),
        ("add", {"double": 5}, "'double' is mapped, so its result is a list"),
        ("add", {"extrac": 5}, "did you mean 'extract'"),
        ("add", {"extract": object()}, "a result may be"),
    ],
)
def test_missing_and_bad_results(select, results, message):
    with pytest.raises(InvalidInput) as caught:
        pipeline().test(select=select, results=results)
    assert message in str(caught.value)


def test_a_none_can_be_given():
    with DAG("d") as made:

        @task
        def maker(): ...

        @task
        def taker(value):
            return value is None

        taker(maker())
    assert made.test(select="taker", results={"maker": None}).result("taker") is True


def test_selected_tasks_do_not_wait_for_others_whatever_their_rule():
    with DAG("d") as made:
        first = EmptyOperator(task_id="first")
        first >> EmptyOperator(task_id="clean", trigger_rule="one_failed")
    assert made.test(select="clean").states == {"clean": "success"}


def test_order_and_failures_pass_through_what_lies_between():
    with DAG("d") as made:

        @task
        def fails():
            raise ValueError

        ran = EmptyOperator(task_id="end")
        fails() >> EmptyOperator(task_id="between") >> ran
        ran >> EmptyOperator(task_id="after", trigger_rule="all_done")
    run = made.test(select="fails,end")
    assert run.states == {"fails": "failed", "end": "upstream_failed"}
    assert run.state == "failed"


def test_branches_reach_through_what_lies_between():
    with DAG("d") as made:

        @task.branch
        def choose():
            return "left"

        chosen = choose()
        for name in ("left", "right"):
            chosen >> EmptyOperator(task_id=name) >> EmptyOperator(task_id=f"{name}_end")
    run = made.test(select="choose, left_end, right_end")
    assert run.states == {"choose": "success", "left_end": "success", "right_end": "skipped"}
