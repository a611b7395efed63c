"""Cells: when conditions fire, what they consume, and what a new version takes over."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.schedule.condition_state import (
    ConditionState,
    add_event,
    deadline_due,
    decide,
    decode_condition_state,
    encode_condition_state,
    migrate_state,
    new_condition_state,
    start_deadlines,
)  # fmt: skip
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Condition,
    DatasetInput,
    Each,
    Latest,
    OrAfter,
    ScheduleSpec,
    Tick,
    deadlines,
    inputs,
)  # fmt: skip
from pubsubflow.model.schedule.partitions import Partitioning, RollUp
from pubsubflow.model.schedule.timetable import IntervalSpec

HOUR = 3600.0


def place(number: int, name: str, **options) -> DatasetInput:
    return DatasetInput(number, f"x://{name}", **options)


def both(*sides: Condition) -> AllOf:
    return AllOf(sides)


def either(*sides: Condition) -> AnyOf:
    return AnyOf(sides)


A, B, C = place(0, "a"), place(1, "b"), place(2, "c")


def apply_events(
    condition: Condition, names: str, *, state: ConditionState | None = None, start: float = 0.0
):
    """Add events by name, a second apart; return what fired after which."""
    schedule = ScheduleSpec(condition)
    state = new_condition_state(schedule) if state is None else state
    fired = []
    for number, name in enumerate(names.split(), 1):
        matched = [each for each in inputs(condition) if each.uri == f"x://{name}"]
        add_event(state, matched, time=start + number, now=start + number)
        firing = decide(schedule, state)
        if firing is not None:
            fired.append((number, firing.inputs, firing.events))
    return fired


@pytest.mark.parametrize(
    ("condition", "names", "fired"),
    [
        (A, "a a", [(1, (0,), 1), (2, (0,), 1)]),
        (both(A, B), "a a b a b", [(3, (0, 1), 3), (5, (0, 1), 2)]),
        (either(A, B), "a b", [(1, (0,), 1), (2, (1,), 1)]),
        (place(0, "a", at_least=3), "a a a a a a", [(3, (0,), 3), (6, (0,), 3)]),
        (both(either(A, B), either(C, place(3, "d"))), "a b c", [(3, (0, 1, 2), 3)]),
        (
            either(both(A, B), both(place(2, "a"), place(3, "c"))),
            "a b c",
            [(2, (0, 1), 2), (3, (2, 3), 2)],
        ),
        (either(both(A, B), C), "a c b", [(2, (2,), 1), (3, (0, 1), 2)]),
        (both(A, place(1, "a", at_least=2)), "a a", [(2, (0, 1), 4)]),
    ],
)
def test_what_fires_and_what_it_consumes(condition, names, fired):
    assert apply_events(condition, names) == fired


def test_within_looks_at_the_latest_time_seen_and_not_at_the_clock():
    schedule = ScheduleSpec(both(place(0, "a", within_seconds=10.0), B))
    state = new_condition_state(schedule)
    recent = schedule.condition.sides[0]
    add_event(state, [recent], time=100, now=5000)
    add_event(state, [B], time=111, now=5001)
    assert decide(schedule, state) is None
    add_event(state, [recent], time=101, now=5002)
    assert decide(schedule, state).inputs == (0, 1)


def test_within_and_at_least_ask_for_so_many_recent_ones():
    recent = place(0, "a", within_seconds=10.0, at_least=2)
    schedule = ScheduleSpec(both(recent, B))
    state = new_condition_state(schedule)
    for moment in (0, 95, 93, 80):
        add_event(state, [recent], time=moment, now=100)
    assert state.inputs[0].times == [95, 93]
    add_event(state, [B], time=104, now=104)
    assert decide(schedule, state) is None
    add_event(state, [recent], time=94, now=105)
    assert decide(schedule, state).events == 6


def test_an_event_from_the_future_counts_as_of_when_it_was_recorded():
    recent = place(0, "a", within_seconds=10.0)
    schedule = ScheduleSpec(both(recent, B))
    state = new_condition_state(schedule)
    add_event(state, [recent], time=10**9, now=100)
    add_event(state, [B], time=105, now=105)
    assert state.watermark == 105
    assert decide(schedule, state) is not None


@pytest.mark.parametrize(("then", "kind"), [("run", "run"), ("skip", "skip")])
def test_a_deadline_settles_what_is_missing(then, kind):
    late = OrAfter(0, both(A, B), 60.0, then)
    schedule = ScheduleSpec(late)
    state = new_condition_state(schedule)
    add_event(state, [A], time=0, now=1000)
    assert [(due.slot, due.due) for due in start_deadlines(schedule, state)] == [(0, 1060.0)]
    assert start_deadlines(schedule, state) == []  # one timer a slot
    firing = decide(schedule, state, late=0)
    assert (firing.kind, firing.inputs, firing.events) == (kind, (0,), 1)
    start_deadlines(schedule, state)
    assert state.late == [False]


def test_what_is_late_stays_late_until_the_rest_comes():
    schedule = ScheduleSpec(both(OrAfter(0, both(A, B), 60.0), C))
    state = new_condition_state(schedule)
    add_event(state, [A], time=0, now=0)
    assert decide(schedule, state, late=0) is None
    assert start_deadlines(schedule, state) == []
    add_event(state, [C], time=100, now=100)
    assert decide(schedule, state).inputs == (0, 2)


def test_what_is_late_waits_for_the_tick():
    schedule = ScheduleSpec(both(OrAfter(0, both(A, B), 60.0), Tick(0, IntervalSpec(3600))))
    state = new_condition_state(schedule)
    add_event(state, [A], time=0, now=0)
    assert decide(schedule, state, late=0) is None
    assert decide(schedule, state, ticked={1}) is None
    assert decide(schedule, state, ticked={0}).inputs == (0,)


def test_a_deadline_counts_from_the_first_that_is_still_pending():
    late = OrAfter(0, either(both(A, B), C), 60.0)
    schedule = ScheduleSpec(late)
    state = new_condition_state(schedule)
    add_event(state, [A], time=0, now=100)
    add_event(state, [C], time=0, now=130)
    assert decide(schedule, state).inputs == (2,)
    assert deadline_due(late, state) == 160.0


def test_a_tick_holds_for_its_moment_only():
    schedule = ScheduleSpec(both(Tick(0, IntervalSpec(60)), A))
    state = new_condition_state(schedule)
    assert decide(schedule, state, ticked={0}) is None
    add_event(state, [A], time=0, now=0)
    assert decide(schedule, state) is None
    assert decide(schedule, state, ticked={0}).inputs == (0,)
    assert decide(schedule, state, ticked={0}) is None


def test_a_window_is_complete_with_all_its_different_parts():
    schedule = ScheduleSpec(A, partitioning=Partitioning(RollUp("day", "hour")))
    state = new_condition_state(schedule, "2026-11-20")
    for hour in [*range(23), *range(23)]:
        add_event(state, [A], time=0, now=0, key=f"2026-11-20T{hour:02}Z")
        assert decide(schedule, state) is None
    add_event(state, [A], time=0, now=0, key="2026-11-20T23Z")
    assert decide(schedule, state).events == 47


@pytest.mark.parametrize(("at_least", "wanted"), [(3, 3), (99, 24), (None, 24)])
def test_fewer_parts_may_suffice(at_least, wanted):
    schedule = ScheduleSpec(A, partitioning=Partitioning(RollUp("day", "hour"), at_least=at_least))
    assert new_condition_state(schedule, "2026-11-20").inputs[0].required_keys == wanted


def test_a_key_that_is_no_window_never_completes_one():
    by = Partitioning(by_uri={"x://b": RollUp("day", "hour")})
    schedule = ScheduleSpec(both(A, B), partitioning=by)
    state = new_condition_state(schedule, "eu")
    add_event(state, [A, B], time=0, now=0, key="eu")
    assert decide(schedule, state) is None


# Versions.


def pending(condition: Condition, names: str, **options) -> tuple[ScheduleSpec, ConditionState]:
    schedule = ScheduleSpec(condition, **options)
    state = new_condition_state(schedule)
    apply_events(condition, names, state=state)
    return schedule, state


def test_pending_events_move_to_the_places_of_the_new_version():
    old, state = pending(both(A, B), "a a")
    new = ScheduleSpec(both(place(0, "c"), place(1, "b"), place(2, "a")))
    fresh, moves = migrate_state(old, new, state)
    assert moves == {0: 2, 1: 1}
    assert [each.count for each in fresh.inputs] == [0, 0, 2]
    assert fresh.inputs[2].since == state.inputs[0].since


def test_another_filter_is_another_place():
    old, state = pending(both(A, B), "a")
    new = ScheduleSpec(both(place(0, "a", where="event.extra.v > 1"), B))
    fresh, moves = migrate_state(old, new, state)
    assert moves == {1: 1}
    assert fresh.inputs[0].count == 0


@pytest.mark.parametrize(
    "new",
    [None, ScheduleSpec(both(A, B), partitioning=Partitioning())],
    ids=["none", "partitioned"],
)
def test_what_a_cell_has_done_outlives_everything(new):
    old, state = pending(both(A, B), "a b a")
    state.collecting_run, state.max_firings = 7, 3
    fresh, moves = migrate_state(old, new, state)
    assert (fresh.firings, fresh.max_firings, fresh.collecting_run, moves, fresh.open) == (
        1,
        3,
        0,
        {},
        False,
    )
    again, _ = migrate_state(new, old, fresh)
    assert again.firings == 1


def test_a_version_with_another_policy_keeps_what_collects():
    old, state = pending(both(A, B), "a")
    state.collecting_run, state.collected = 7, 2
    fresh, _ = migrate_state(old, ScheduleSpec(old.condition, Latest()), state)
    assert (fresh.collecting_run, fresh.collected, fresh.inputs[0].count) == (7, 2, 1)


# Properties.


def _numbered(part, counter, slots):
    if isinstance(part, DatasetInput):
        return DatasetInput(next(counter), part.uri, at_least=part.at_least)
    if isinstance(part, OrAfter):
        return OrAfter(next(slots), _numbered(part.side, counter, slots), 60.0, part.then)
    return type(part)(tuple(_numbered(side, counter, slots) for side in part.sides))


conditions = st.recursive(
    st.builds(
        DatasetInput,
        st.just(0),
        st.sampled_from(("x://a", "x://b", "x://c")),
        at_least=st.integers(1, 2),
    ),
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(OrAfter, st.just(0), inner, st.just(60.0), st.sampled_from(("run", "skip"))),
    ),
    max_leaves=6,
).map(lambda condition: _numbered(condition, itertools.count(), itertools.count()))
words = st.lists(st.sampled_from("abc"), max_size=30)


@given(conditions, words)
def test_every_event_is_consumed_once_in_each_place_or_still_pending(condition, names):
    schedule, places = ScheduleSpec(condition), list(inputs(condition))
    state = new_condition_state(schedule)
    arrived = dict.fromkeys(range(len(places)), 0)
    consumed = 0
    for number, name in enumerate(names):
        matched = [each for each in places if each.uri == f"x://{name}"]
        add_event(state, matched, time=number, now=number)
        for each in matched:
            arrived[each.index] += 1
        firing = decide(schedule, state)
        consumed += firing.events if firing is not None else 0
        assert all(each.count >= 0 for each in state.inputs)
        assert sum(arrived.values()) == consumed + sum(each.count for each in state.inputs)


@given(conditions, words)
def test_a_side_that_did_not_hold_keeps_its_own(condition, names):
    schedule = ScheduleSpec(condition)
    state = new_condition_state(schedule)
    for number, name in enumerate(names):
        matched = [each for each in inputs(condition) if each.uri == f"x://{name}"]
        add_event(state, matched, time=number, now=number)
        before = [each.count for each in state.inputs]
        firing = decide(schedule, state)
        taken = firing.inputs if firing is not None else ()
        for each in inputs(condition):
            left = state.inputs[each.index].count
            assert left == (0 if each.index in taken else before[each.index])
            if each.index in taken and not list(deadlines(condition)):
                assert before[each.index] >= each.at_least


@given(words, st.randoms(use_true_random=False))
def test_independent_events_may_change_places_before_the_whole_holds(names, dice):
    condition = both(place(0, "a", at_least=40), place(1, "b", at_least=40), C)
    shuffled = list(names)
    dice.shuffle(shuffled)
    counts = []
    for order in (names, shuffled):
        state = new_condition_state(ScheduleSpec(condition))
        assert apply_events(condition, " ".join(order), state=state) == []
        counts.append([each.count for each in state.inputs])
    assert counts[0] == counts[1]


@given(conditions, words, st.floats(1, 10**6))
def test_a_decision_depends_on_the_order_and_not_on_the_clock(condition, names, pause):
    assert apply_events(condition, " ".join(names)) == apply_events(
        condition, " ".join(names), start=pause
    )


@given(conditions, words)
def test_a_cell_is_itself_after_it_was_stored(condition, names):
    schedule = ScheduleSpec(condition)
    kept, stored = new_condition_state(schedule), new_condition_state(schedule)
    for number, name in enumerate(names):
        matched = [each for each in inputs(condition) if each.uri == f"x://{name}"]
        for state in (kept, stored):
            add_event(state, matched, time=number, now=number)
        assert decide(schedule, kept) == decide(schedule, stored)
        assert start_deadlines(schedule, kept) == start_deadlines(schedule, stored)
        stored = decode_condition_state(encode_condition_state(stored))
        assert stored == kept


@given(conditions, words)
def test_a_cell_does_not_grow_with_what_is_pending(condition, names):
    schedule = ScheduleSpec(both(condition, place(99, "never")))
    schedule = ScheduleSpec(_numbered(schedule.condition, itertools.count(), itertools.count()))
    few, many = new_condition_state(schedule), new_condition_state(schedule)
    for state, times in ((few, 1), (many, 20)):
        for number in range(times):
            for name in names:
                matched = [p for p in inputs(schedule.condition) if p.uri == f"x://{name}"]
                add_event(state, matched, time=number, now=number)
    assert len(encode_condition_state(many)) <= len(encode_condition_state(few)) + 4 * len(
        few.inputs
    )


def test_the_default_policy_is_each():
    assert ScheduleSpec(A).policy == Each()
