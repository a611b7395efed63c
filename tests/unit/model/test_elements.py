"""Elements that a file maps over are found by what they are, not by where they stand."""

import subprocess
import sys
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.source.elements import digest_elements, element_order, same_elements

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.dates() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(wanted=st.lists(values, max_size=8), data=st.data())
def test_elements_in_another_order_are_found(wanted, data):
    made = data.draw(st.permutations(wanted))
    one, other = digest_elements(wanted), digest_elements(made)
    assert same_elements(one, other)
    order = element_order(one, other)
    found = made if order is None else [made[place] for place in order]
    assert digest_elements(found) == one


@pytest.mark.parametrize(
    ("wanted", "made"),
    [
        ([1, 2], [1, 3]),
        ([1, 2], ["1", 2]),
        ([1, 1, 2], [1, 2, 2]),
        ([{"a": 1}], [{"a": 2}]),
        ([date(2026, 1, 1)], [date(2026, 1, 2)]),
        ([True], [1]),
        (list(range(2000)), [*range(1, 2000), 0]),
    ],
)
def test_other_elements_are_not_the_same(wanted, made):
    assert not same_elements(digest_elements(wanted), digest_elements(made))


def test_equal_objects_of_no_order_are_the_same():
    assert digest_elements([{"a": 1, "b": 2}, {3, 1}]) == digest_elements(
        [{"b": 2, "a": 1}, frozenset({1, 3})]
    )


def test_objects_that_cannot_be_compared_are_not_checked():
    assert digest_elements([1, object()]) is None
    assert digest_elements([[{"a": object()}]]) is None
    assert same_elements(None, digest_elements([1]))
    assert element_order(None, digest_elements([1])) is None


def test_digests_are_those_of_every_process():
    code = (
        "from pubsubflow.model.source.elements import digest_elements as d;"
        "print(d([{'a', 'b', 'c'}, 'x', {'k': {1, 2}}, b'y', 1.5]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{digest_elements([{'a', 'b', 'c'}, 'x', {'k': {1, 2}}, b'y', 1.5])}\n"}
