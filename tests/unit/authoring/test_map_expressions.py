"""Tasks are mapped over dicts, parts of results, zip, map and concat, as plain Python would."""

from itertools import chain, zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow import DAG, DefinitionError, Skip, dag, task

VALUES = st.one_of(
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2),
)
TREES = st.recursive(
    st.tuples(st.sampled_from(["file", "result", "part"]), VALUES),
    lambda inner: st.one_of(
        st.tuples(st.just("map"), inner),
        st.tuples(st.just("zip"), inner, inner),
        st.tuples(st.just("longest"), inner, inner),
        st.tuples(st.just("concat"), inner, inner),
    ),
    max_leaves=4,
)


def shown(value):
    return repr(tuple(value) if isinstance(value, list | tuple) else value)


def expected(tree):
    kind, *rest = tree
    match kind:
        case "map":
            return [shown(each) for each in expected(rest[0])]
        case "zip":
            return list(zip(*map(expected, rest), strict=False))
        case "longest":
            return list(zip_longest(*map(expected, rest), fillvalue="none"))
        case "concat":
            return list(chain.from_iterable(map(expected, rest)))
        case _:
            (value,) = rest
            return list(value.items()) if isinstance(value, dict) else value


def source(value, results):
    results.append(task(task_id=f"source{len(results)}")(lambda: value)())
    return results[-1]


def written(tree, results):
    """Return a tree as a user would write it."""
    kind, *rest = tree
    if kind in ("file", "result", "part"):
        (value,) = rest
        if kind == "file":
            return value
        made = source({"rows": value} if kind == "part" else value, results)
        return made["rows"] if kind == "part" else made
    first, *others = (written(each, results) for each in rest)
    if isinstance(first, list | dict):
        # A method needs an expression: that of a result.
        first = source(first, results)
    match kind:
        case "map":
            return first.map(shown)
        case "zip":
            return first.zip(*others)
        case "longest":
            return first.zip(*others, fillvalue="none")
        case _:
            return first.concat(*others)


def plain(value):
    """Return a value as it is after its way through messages."""
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@settings(deadline=None, max_examples=40)
@given(TREES)
def test_expressions_hold_what_plain_python_holds(tree):
    with DAG("d") as made:

        @task
        def each(x):
            return plain(x)

        each.expand(x=written(tree, []))
    run = made.test()
    wanted = plain(expected(tree))
    found = [ended.value for ended in run.tasks["each"]]
    assert found == (wanted or [None])
    assert run.states["each"] == ("success" if wanted else "skipped")


def test_a_part_of_a_result_is_mapped_over_and_gathered_in_order():
    @dag
    def d():
        @task
        def extract():
            return {"rows": [3, 1, 2], "meta": {"a": 1}}

        @task
        def double(n):
            return 2 * n

        @task
        def name(pair):
            key, value = pair
            return f"{key}={value}"

        @task
        def gather(numbers, names):
            return numbers, names

        found = extract()
        gather(double.expand(n=found["rows"]), name.expand(pair=found["meta"]))

    assert d.test().result("gather") == [[6, 2, 4], ["a=1"]]


def test_a_function_of_elements_may_skip_or_fail_before_any_instance():
    def choose(value):
        if value == 2:
            raise Skip("two")
        return value

    @dag
    def d():
        numbers = task(task_id="numbers")(lambda: [1, 2])()
        task(task_id="each")(lambda x: x).expand(x=numbers.map(choose))

    run = d.test()
    assert run.states == {"numbers": "success", "each__x": "skipped", "each": "skipped"}


def test_limits_of_the_dag_are_those_of_the_instances():
    @dag(default_args={"pool": "p", "outlets": ["x://y"], "retries": 2})
    def d():
        one = task(task_id="one")(lambda: [1])()
        task(task_id="each")(lambda x: x).expand(x=one.zip([2]))

    (computed,) = (each for each in d.to_spec("", "").tasks if each.task_id == "each__x")
    assert (computed.pool, computed.outlets, computed.retry.retries) == (None, (), 2)
    assert computed.operator == "elements"


def test_mistakes_are_errors_of_their_line():
    with DAG("d"):
        one = task(task_id="one")(lambda: [1])()
        each = task(task_id="each")(lambda x: x)
        with pytest.raises(DefinitionError, match="takes a function, not 3"):
            one.map(3)
        with pytest.raises(DefinitionError, match="lists, dicts and results, not over 'ab'"):
            one.zip("ab")
        with pytest.raises(DefinitionError, match=r"pass a map expression to \.expand"):
            each(one.map(str))
        with pytest.raises(DefinitionError, match=r"pass it to \.expand"):
            list(one.map(str))
