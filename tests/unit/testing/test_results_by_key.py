"""Results by key in `dag.test()`: pushed, pulled, spread, mapped, and what attempts leave."""

from datetime import timedelta

import pytest

from pubsubflow import (
    DAG,
    Context,
    DefinitionError,
    Operator,
    ResultNotFound,
    StepFailed,
    dag,
    task,
)


def test_pushed_values_are_pulled_beside_the_result():
    @dag
    def made():
        @task
        def count(ctx: Context) -> int:
            ctx.push("rows", 3)
            ctx.push("rows", 4)
            ctx.push("empty", None)
            return 7

        @task
        def read(ctx: Context) -> list:
            names = ("rows", "empty", "return_value")
            return [*(ctx.pull("count", key) for key in names), ctx.pull("count")]

        count() >> read()

    result = made.test(raise_on_error=True)
    assert result.result("read") == [4, None, 7, 7]
    assert result.tasks["count"][0].pushed == {"rows": 4, "empty": None}


def test_async_tasks_push_and_pull_as_well():
    with DAG("x") as made:

        @task
        async def count(ctx: Context) -> None:
            ctx.push("rows", [1])

        @task
        async def read(ctx: Context) -> list:
            return ctx.pull("count", "rows")

        count() >> read()
    assert made.test().result("read") == [1]


def test_a_dict_is_spread_into_keys_and_referred_to_by_key():
    with DAG("x") as made:

        @task(multiple_outputs=True)
        def split() -> dict:
            return {"good": 1, "bad": [2]}

        @task
        def read(good: int, ctx: Context) -> list:
            return [good, ctx.pull("split", "bad")]

        read(split()["good"])
    assert made.test().result("read") == [1, [2]]
    assert [node.task_id for node in made.nodes["read"].upstream] == ["split"]


def test_multiple_outputs_needs_a_dict():
    with DAG("x") as made:

        @task(multiple_outputs=True)
        def split() -> list:
            return [1]

        split()
    with pytest.raises(DefinitionError, match="returns a dict, not list"):
        made.test(raise_on_error=True)


def test_a_reference_by_key_finds_what_an_operator_has_pushed():
    class Count(Operator):
        def execute(self, ctx: Context) -> str:
            ctx.push("rows", {"n": 5})
            return "done"

    with DAG("x") as made:

        @task
        def read(rows: int) -> int:
            return rows

        read(Count(task_id="count").output["rows"]["n"])
    assert made.test(raise_on_error=True).result("read") == 5


def test_a_mapped_task_gives_a_list_and_each_instance_by_its_index():
    with DAG("x") as made:

        @task
        def each(n: int, ctx: Context) -> int:
            if n:
                ctx.push("half", n / 2)
            return n

        @task
        def read(ctx: Context) -> list:
            return [
                ctx.pull("each", "half"),
                ctx.pull("each", "half", map_index=2),
                ctx.pull("each", "half", map_index=0, default="none"),
                ctx.pull("each"),
                ctx.pull("each", map_index=1),
            ]

        each.expand(n=[0, 2, 4]) >> read()
    assert made.test(raise_on_error=True).result("read") == [[1.0, 2.0], 2.0, "none", [0, 2, 4], 2]


def test_a_failed_task_leaves_what_its_last_attempt_has_pushed():
    with DAG("x") as made:

        @task(retries=1)
        def fail(ctx: Context) -> None:
            ctx.push(f"attempt_{ctx.attempt}", "left")
            raise ValueError("no")

        @task(trigger_rule="all_done")
        def read(ctx: Context) -> list:
            return [ctx.pull("fail", f"attempt_{n}", default=None) for n in (1, 2)]

        fail() >> read()
    assert made.test().result("read") == [None, "left"]


def test_what_is_not_there_is_an_error_that_names_the_keys():
    with DAG("x") as made:

        @task
        def count(ctx: Context) -> None:
            ctx.push("rows", 1)

        @task
        def read(ctx: Context) -> None:
            ctx.pull("count", "row")

        count() >> read()
    with pytest.raises(ResultNotFound, match="nothing under 'row'; its keys: rows"):
        made.test(raise_on_error=True)


def test_only_upstream_tasks_of_the_run_can_be_pulled():
    with DAG("x") as made:

        @task
        def count() -> None: ...

        @task
        def read(ctx: Context) -> None:
            ctx.pull("count")

        count()
        read()
    with pytest.raises(DefinitionError, match=r"ctx.pull\('count'\): it is not upstream"):
        made.test(raise_on_error=True)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("", 1, "a key must be"),
        ("return_value", 1, "return it"),
        ("x", object(), r"ctx.push\('x'\): the result is a object"),
        ("x", "a" * (1 << 20), "1,048,5.. bytes"),
    ],
)
def test_what_cannot_be_pushed_is_refused_at_its_line(key, value, text):
    with DAG("x") as made:

        @task
        def push(ctx: Context) -> None:
            ctx.push(key, value)

        push()
    with pytest.raises(DefinitionError, match=text):
        made.test(raise_on_error=True)


def test_a_step_cannot_push_as_a_replay_skips_it():
    with DAG("x") as made:

        @task
        async def push(ctx: Context) -> None:
            await ctx.step("s", ctx.push, "x", 1)

        push()
    with pytest.raises(StepFailed, match=r"ctx.push\(\) is inside of a step"):
        made.test(raise_on_error=True)


def test_a_task_that_waits_pushes_again_when_it_goes_on():
    with DAG("x") as made:

        @task
        async def wait(ctx: Context) -> None:
            ctx.push("before", 1)
            await ctx.sleep(timedelta(hours=1))
            ctx.push("after", 2)

        wait()
    assert made.test().tasks["wait"][0].pushed == {"before": 1, "after": 2}
