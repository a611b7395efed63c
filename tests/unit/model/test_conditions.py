"""What fires, and what a firing consumes."""

import itertools

import pytest
from dag_specs import condition, uri
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.conditions import AllOf, AnyOf, Input, decide, describe, held_places, inputs


def play(text, events):
    """Return what each firing consumes: the events by name, in order of arrival."""
    expression = condition(text)
    places = list(inputs(expression))
    pending = [[] for _ in places]
    counts = [0] * len(places)
    fired = []
    for event in events.split():
        matched = [place.place for place in places if place.uri == uri(event[0])]
        for place in matched:
            pending[place].append(event)
        counts, consumed = decide(expression, counts, matched)
        if consumed:
            taken = {name for place in consumed for name in pending[place]}
            fired.append(" ".join(name for name in events.split() if name in taken))
            for place in consumed:
                pending[place].clear()
        assert counts == list(map(len, pending))
    return fired


@pytest.mark.parametrize(
    ("text", "events", "fired"),
    [
        ("(a | b) & (c | d)", "a1 b2 c3", ["a1 b2 c3"]),
        ("(a & b) | (a & c)", "a1 b2 c3", ["a1 b2", "a1 c3"]),
        ("a", "a1 a2 b3", ["a1", "a2"]),
        ("a & b", "a1 a2 a3 b4 b5 a6", ["a1 a2 a3 b4", "b5 a6"]),
        ("a & b", "b1", []),
        ("a | b", "a1 b2 a3", ["a1", "b2", "a3"]),
        ("a & a", "a1 a2", ["a1", "a2"]),
        ("a | a", "a1", ["a1"]),
        ("(a & b) | c", "a1 c2 b3", ["c2", "a1 b3"]),
        ("(a & b) | (c & d)", "a1 c2 b3 d4", ["a1 b3", "c2 d4"]),
        ("(a & b) | (b & c)", "a1 c2 b3", ["a1 c2 b3"]),
        ("a & (b | c)", "b1 c2 a3 a4 c5", ["b1 c2 a3", "a4 c5"]),
        ("(a & b) | a", "a1 b2 a3", ["a1", "a1 b2", "a3"]),
        ("((a & b) | c) & d", "a1 d2 c3 b4 d5", ["d2 c3", "a1 b4 d5"]),
        ("a & b & c & d", "d1 c2 b3 a4", ["d1 c2 b3 a4"]),
    ],
)
def test_a_firing_consumes_the_sides_that_held(text, events, fired):
    assert play(text, events) == fired


def test_an_event_of_another_dataset_changes_nothing():
    assert decide(condition("a & b"), [1, 0], []) == ([1, 0], frozenset())


def test_an_expression_is_described_as_users_write_it():
    assert describe(condition("(a & b) | c")) == "(x://a & x://b) | x://c"
    assert describe(condition("a")) == "x://a"


conditions = st.recursive(
    st.sampled_from("abc"),
    lambda inner: st.tuples(st.sampled_from("&|"), st.lists(inner, min_size=2, max_size=3)),
    max_leaves=6,
)


def built(tree, places):
    if isinstance(tree, str):
        return Input(next(places), uri(tree))
    sign, sides = tree
    made = tuple(built(side, places) for side in sides)
    return AllOf(made) if sign == "&" else AnyOf(made)


def truth(tree, pending, places):
    if isinstance(tree, str):
        return pending[next(places)] > 0
    sign, sides = tree
    values = [truth(side, pending, places) for side in sides]
    return all(values) if sign == "&" else any(values)


@given(conditions, st.lists(st.sampled_from("abc"), max_size=20))
def test_a_run_fires_exactly_when_the_expression_is_true(tree, events):
    expression = built(tree, itertools.count())
    places = list(inputs(expression))
    counts = [0] * len(places)
    for event in events:
        matched = [place.place for place in places if place.uri == uri(event)]
        added = [count + (place in matched) for place, count in enumerate(counts)]
        counts, consumed = decide(expression, counts, matched)
        assert bool(consumed) == truth(tree, added, itertools.count())
        for place, count in enumerate(counts):
            assert count == (0 if place in consumed else added[place])
        assert all(added[place] for place in consumed), "an empty place consumes nothing"
        assert held_places(expression, counts) is None, "what is left cannot fire by itself"


@given(conditions, st.lists(st.sampled_from("abc"), max_size=20))
def test_no_event_is_consumed_twice_in_one_place(tree, events):
    expression = built(tree, itertools.count())
    places = list(inputs(expression))
    counts = [0] * len(places)
    arrived = [0] * len(places)
    taken = [0] * len(places)
    for event in events:
        matched = [place.place for place in places if place.uri == uri(event)]
        before = [count + (place in matched) for place, count in enumerate(counts)]
        for place in matched:
            arrived[place] += 1
        counts, consumed = decide(expression, counts, matched)
        for place in consumed:
            taken[place] += before[place]
    assert [left + used for left, used in zip(counts, taken, strict=True)] == arrived
