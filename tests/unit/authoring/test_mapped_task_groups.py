"""Mapped task groups as authors write them, run by `dag.test()`."""

from datetime import timedelta

import pytest

from pubsubflow import (
    DAG,
    BashOperator,
    Context,
    EmptyOperator,
    Fail,
    dag,
    setup,
    task,
    task_group,
    teardown,
)
from pubsubflow.errors import DefinitionError


@task
def rows(found=(1, 2, 3)) -> list:
    return list(found)


@task
def add(a: int, b: int = 10) -> int:
    if a < 0:
        raise Fail("negative")
    return a + b


@task
def double(n: int) -> int:
    return 2 * n


@task(trigger_rule="all_done")
def gather(found: list) -> list:
    return found


def states(result, task_id):
    return [str(each.state) for each in result.tasks[task_id]]


def test_each_element_goes_through_the_group_and_results_gather_in_order():
    @dag
    def one():
        @task_group
        def each(x):
            return double(add(x))

        gather(each.expand(x=rows()))

    result = one.test()
    assert result.result("gather") == [22, 24, 26]
    assert [each.map_index for each in result.tasks["each.add"]] == [0, 1, 2]


def test_a_failed_index_stops_itself_alone():
    @dag
    def one():
        @task_group
        def each(x):
            return double(add(x))

        gather(each.expand(x=rows((1, -1, 3))))

    result = one.test()
    assert states(result, "each.double") == ["success", "upstream_failed", "success"]
    assert result.result("gather") == [22, 26]


def test_arguments_are_fixed_combined_and_read_from_dicts():
    @dag
    def one():
        @task_group
        def each(a, b):
            return add(a, b)

        gather.override(task_id="fixed")(each.partial(b=1).expand(a=[1, 2]))
        gather.override(task_id="product")(each.expand(a=[1, 2], b=[10, 20]))
        gather.override(task_id="dicts")(each.expand_kwargs([{"a": 1, "b": 2}, {"a": 3, "b": 4}]))

        @task_group
        def part(row, n=5):
            return add(row["a"], n)

        gather.override(task_id="parts")(part.expand_kwargs([{"row": {"a": 1}}]))
        computed = rows().map(lambda n: 2 * n)
        gather.override(task_id="computed")(each.partial(b=0).expand(a=computed))

    result = one.test()
    assert result.result("fixed") == [2, 3]
    assert result.result("product") == [11, 21, 12, 22]
    assert result.result("dicts") == [3, 7]
    assert result.result("parts") == [6]
    assert result.result("computed") == [2, 4, 6]


def test_without_elements_all_is_skipped():
    @dag
    def one():
        @task_group
        def each(x):
            return double(add(x))

        gather(each.expand(x=rows(())))

    result = one.test()
    assert states(result, "each.add") == states(result, "each.double") == ["skipped"]
    assert result.result("gather") == []


def test_branches_and_short_circuits_decide_for_their_index():
    @dag
    def one():
        @task.branch
        def which(n: int) -> str:
            return "each.small" if n < 2 else "each.large"

        @task.short_circuit
        def go_on(n: int) -> bool:
            return n != 2

        @task
        def small(n: int) -> str:
            return f"small {n}"

        @task
        def large(n: int) -> str:
            return f"large {n}"

        @task
        def last(n: int) -> int:
            return n

        @task_group
        def each(x):
            chosen = which(x)
            one, other = small(x), large(x)
            chosen >> [one, other]
            end = last(x)
            go_on(x) >> end
            return end

        gather(each.expand(x=rows()))

    result = one.test()
    assert states(result, "each.small") == ["success", "skipped", "skipped"]
    assert states(result, "each.large") == ["skipped", "success", "success"]
    assert states(result, "each.last") == ["success", "skipped", "success"]
    assert result.result("gather") == [1, 3]


def test_setups_teardowns_and_operators_work_per_index():
    @dag
    def one():
        @setup
        def make(n: int) -> int:
            if n == 2:
                raise Fail("no")
            return n

        @teardown
        def drop(n: int) -> int:
            return n

        @task_group
        def each(x):
            made = make(x)
            with drop(made).as_teardown(setups=made):
                add(made) >> EmptyOperator(task_id="marker")

        each.expand(x=rows()) >> gather([])

    result = one.test()
    assert states(result, "each.drop") == ["success", "upstream_failed", "success"]
    assert states(result, "each.marker") == ["success", "upstream_failed", "success"]


def test_siblings_see_the_results_of_their_index_by_name_as_well():
    @dag
    def one():
        @task
        def read(ctx: Context) -> list:
            return [ctx.result("each.add"), ctx.pull("each.add"), ctx.pull("each.add", map_index=0)]

        @task_group
        def each(x):
            found = read()
            add(x) >> found
            return found

        gather(each.expand(x=rows()))

    assert one.test().result("gather") == [[11, 11, 11], [12, 12, 11], [13, 13, 11]]


def test_groups_are_mapped_over_groups_and_stand_in_groups():
    @dag
    def one():
        @task_group
        def each(x):
            return add(x)

        gather(each.expand(x=each.expand(x=rows())))
        with task_group("outer"):

            @task_group
            def inner(x):
                with task_group("deep"):
                    return add(x, 1)

            gather(inner.expand(x=[1, 2]))

    result = one.test()
    assert result.result("gather") == [21, 22, 23]
    assert states(result, "each__1.add") == ["success"] * 3
    assert result.result("outer.gather") == [2, 3]
    assert states(result, "outer.inner.deep.add") == ["success"] * 2


def test_an_index_is_tried_again_and_waits_for_itself():
    @dag
    def one():
        @task(retries=1)
        async def load(n: int, ctx: Context) -> int:
            await ctx.sleep(timedelta(hours=n))
            if ctx.attempt == 1 and n != 2:
                raise RuntimeError("once more")
            return n

        @task_group
        def each(x):
            return double(load(x))

        gather(each.expand(x=rows()))

    result = one.test()
    assert [each.attempts for each in result.tasks["each.load"]] == [2, 1, 2]
    assert result.result("gather") == [2, 4, 6]


def test_elements_are_there_also_where_no_argument_is_one():
    @dag
    def one():
        @task
        def look(ctx: Context) -> dict:
            return ctx.element

        @task_group
        def each(x, y):
            BashOperator(task_id="sh", bash_command="echo {{ element.x | sh }}")
            return look()

        gather(each.expand(x=rows(("a", "b")), y=[1]))
        gather(look.override(task_id="alone")())

    result = one.test()
    assert result.result("gather") == [{"x": "a", "y": 1}, {"x": "b", "y": 1}]
    assert [each.value for each in result.tasks["each.sh"]] == ["a", "b"]
    assert result.result("alone") == {}


def test_instances_have_names():
    @dag
    def one():
        @task_group(map_index_template="row {{ element.x }}")
        def each(x):
            add(x)

        each.expand(x=rows((4, -5)))
        double.override(map_index_template="{{ element.n }} of {{ task.task_id }}").expand(n=[7])

    result = one.test()
    assert [each.map_name for each in result.tasks["each.add"]] == ["row 4", "row -5"]
    assert [each.map_name for each in result.tasks["double"]] == ["7 of double"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda x: add.partial(b=x).expand(a=[1]), "what is mapped cannot be mapped once more"),
        (lambda x: task_group("inner")(add).partial(b=x).expand(a=[1]), "mapped once more"),
        (lambda x: [add.override(depends_on_past=True)(x)], "depends_on_past does not work"),
        (lambda x: [add(each) for each in x], "cannot be looped over"),
        (lambda x: add(f"{x}"), "cannot be put into a text"),
    ],
)
def test_what_a_mapped_group_cannot_hold_is_refused(body, message):
    with DAG("d"):
        group = task_group("each")(body)
        with pytest.raises(DefinitionError, match=message):
            group.expand(x=[1, 2])


def test_a_branch_does_not_lead_out_of_a_mapped_group():
    with DAG("d") as made:

        @task.branch
        def which() -> str:
            return "gather"

        @task_group
        def each(x):
            return which()

        each.expand(x=[1]) >> gather([])
    with pytest.raises(DefinitionError, match="put it into the group"):
        made.to_spec("d.py", "h")


def test_a_group_without_an_argument_for_the_elements_is_refused():
    with DAG("d"), pytest.raises(DefinitionError, match="has no argument 'y'"):
        task_group("each")(lambda x: [add(x)]).expand(y=[1])
