"""What fires, and what a firing consumes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.schedule.condition_state import (
    add_event,
    decide,
    new_condition_state,
    satisfied_inputs,
)
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    DatasetInput,
    ScheduleSpec,
    describe,
    inputs,
)
from support.specs import condition, uri


def counts(state):
    return [each.count for each in state.inputs]


def offer(schedule, state, names):
    """Add an event to the places of its dataset; return what then fires, if anything."""
    matched = [place for place in inputs(schedule.condition) if place.uri in map(uri, names)]
    add_event(state, matched, time=1, now=1)
    return decide(schedule, state)


def play(text, events):
    """Return what each firing consumes: the events by name, in order of arrival."""
    schedule = ScheduleSpec(condition(text))
    places = list(inputs(schedule.condition))
    pending = [[] for _ in places]
    state = new_condition_state(schedule)
    fired = []
    for event in events.split():
        for place in places:
            if place.uri == uri(event[0]):
                pending[place.index].append(event)
        firing = offer(schedule, state, event[0])
        if firing is not None:
            assert firing.kind == "run"
            assert firing.events == sum(len(pending[place]) for place in firing.inputs)
            taken = {name for place in firing.inputs for name in pending[place]}
            fired.append(" ".join(name for name in events.split() if name in taken))
            for place in firing.inputs:
                pending[place].clear()
        assert counts(state) == list(map(len, pending))
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
    schedule = ScheduleSpec(condition("a & b"))
    state = new_condition_state(schedule)
    assert offer(schedule, state, "a") is None
    assert offer(schedule, state, "z") is None
    assert counts(state) == [1, 0]


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
        return DatasetInput(next(places), uri(tree))
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
    schedule = ScheduleSpec(built(tree, itertools.count()))
    places = list(inputs(schedule.condition))
    state = new_condition_state(schedule)
    for event in events:
        before = counts(state)
        added = [before[place.index] + (place.uri == uri(event)) for place in places]
        firing = offer(schedule, state, event)
        assert (firing is not None) == truth(tree, added, itertools.count())
        consumed = firing.inputs if firing is not None else ()
        for place, count in enumerate(counts(state)):
            assert count == (0 if place in consumed else added[place])
        assert all(added[place] for place in consumed), "an empty place consumes nothing"
        assert satisfied_inputs(schedule.condition, state) is None, (
            "what is left cannot fire by itself"
        )


@given(conditions, st.lists(st.sampled_from("abc"), max_size=20))
def test_no_event_is_consumed_twice_in_one_place(tree, events):
    schedule = ScheduleSpec(built(tree, itertools.count()))
    places = list(inputs(schedule.condition))
    state = new_condition_state(schedule)
    arrived = [0] * len(places)
    taken = [0] * len(places)
    for event in events:
        before = counts(state)
        added = [before[place.index] + (place.uri == uri(event)) for place in places]
        for place in places:
            arrived[place.index] += place.uri == uri(event)
        firing = offer(schedule, state, event)
        for place in firing.inputs if firing is not None else ():
            taken[place] += added[place]
    left = counts(state)
    assert [kept + used for kept, used in zip(left, taken, strict=True)] == arrived
