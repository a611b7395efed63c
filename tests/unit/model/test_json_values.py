"""JSON values that can be stored and sent, and what is refused at every edge."""

from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import DAG, Dataset
from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.cel.expressions import evaluate
from pubsubflow.model.cloud_events import BadCloudEvent, read_event
from pubsubflow.model.json_values import MAX_DEPTH, json_fault, may_be_unfit
from pubsubflow.testing import event


class Limits(msgspec.Struct):
    most: float = inf


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"a": {"ratio": nan}}, "extra.a.ratio is nan"),
        ({"rows": [1, -inf]}, r"extra.rows\[1\] is -inf"),
        ({"n": 1 << 64}, "extra.n is an integer of more than 64 bits; send it as text"),
        ({"n": -(1 << 63) - 1}, "extra.n is an integer"),
        (nested(MAX_DEPTH + 1), "extra is nested more than 100 levels deep"),
        (nested(100_000), "levels deep"),
    ],
)
def test_a_value_that_json_cannot_hold_is_named(value, fault):
    with pytest.raises(AssertionError, match=fault):
        assert not json_fault(value, "extra"), json_fault(value, "extra")


def test_the_character_nul_is_a_fault_where_it_is_asked_for():
    for value in ({"a": ["x\0"]}, {"a\0": 1}):
        assert json_fault(value, "body") is None
        assert "cannot be stored" in json_fault(value, "body", nul=True)


def test_bounds_are_inclusive():
    value = {"a": [(1 << 64) - 1, -(1 << 63), 1e308, True, None, "x"], "b": nested(MAX_DEPTH - 1)}
    assert json_fault(value, "v") is None


texts = st.text(max_size=5) | st.just("x\0")
values = st.recursive(
    st.none() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@given(values)
def test_the_cheap_search_overlooks_no_fault(value):
    try:
        text = msgspec.json.encode(value)
    except OverflowError:
        return
    if json_fault(msgspec.json.decode(text), "v", nul=True) is not None:
        assert may_be_unfit(text)


@pytest.mark.parametrize("text", ['"]"', r'"\""', r'"\\"', "{}", "[[]]", r'"\u005d]}"'])
def test_levels_are_counted_without_the_brackets_in_texts(text):
    def within(levels):
        return f"{f'[{text},' * levels}1{']' * levels}".encode()

    assert not may_be_unfit(within(MAX_DEPTH - 2))
    assert may_be_unfit(within(MAX_DEPTH + 2))


def test_many_shallow_values_are_not_suspected():
    assert not may_be_unfit(msgspec.json.encode([{"a": ["[", "{", {}]}] * MAX_DEPTH))


def test_what_a_dag_file_declares_keeps_its_value_or_is_refused():
    with pytest.raises(DefinitionError, match=r"extra.top is inf"):
        Dataset("x://a", extra={"top": inf})
    with pytest.raises(DefinitionError, match=r"params.limit is nan"):
        DAG("a", params={"limit": nan})
    with pytest.raises(DefinitionError, match=r"params.most is inf"):
        DAG("a", params=Limits)
    with pytest.raises(DefinitionError, match=r"extra.ratio is nan"):
        event("x://a", extra={"ratio": nan})
    with pytest.raises(DefinitionError, match=r"extra.n is an integer of more than 64 bits"):
        event("x://a", extra={"n": 1 << 64})


def test_a_computed_param_keeps_its_value_or_is_refused():
    with pytest.raises(InvalidInput, match=r"param 'p': .* failed: its value is inf"):
        evaluate({"p": "1.0 / 0.0"}, [event("x://a").to_info()], None)


def test_a_cloud_event_names_what_it_cannot_hold():
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "x://a"}
    with pytest.raises(BadCloudEvent, match=r"data.n is an integer of more than 64 bits"):
        read_event({**attributes, "data": {"n": 1 << 64}})
