"""Cells: when conditions fire, what they consume, and what a new version takes over."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.model.schedule.condition_state import (
    Cell,
    add,
    carry_over,
    deadline_due,
    decide,
    decode_cell,
    encode_cell,
    new_cell,
    set_deadlines,
)  # fmt: skip
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Each,
    Input,
    Latest,
    OrAfter,
    Schedule,
    Tick,
    deadlines,
    inputs,
)  # fmt: skip
from pubsubflow.model.schedule.partitions import Partitioning, RollUp
from pubsubflow.model.schedule.timetable import Every

HOUR = 3600.0


def place(number: int, name: str, **options) -> Input:
    return Input(number, f"x://{name}", **options)


def both(*sides: Condition) -> AllOf:
    return AllOf(sides)


def either(*sides: Condition) -> AnyOf:
    return AnyOf(sides)


A, B, C = place(0, "a"), place(1, "b"), place(2, "c")


def fold(condition: Condition, names: str, *, cell: Cell | None = None, start: float = 0.0):
    """Add events by name, a second apart; return what fired after which."""
    schedule = Schedule(condition)
    cell = new_cell(schedule) if cell is None else cell
    fired = []
    for number, name in enumerate(names.split(), 1):
        matched = [each for each in inputs(condition) if each.uri == f"x://{name}"]
        add(cell, matched, time=start + number, now=start + number)
        firing = decide(schedule, cell)
        if firing is not None:
            fired.append((number, firing.places, firing.events))
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
    assert fold(condition, names) == fired


def test_within_looks_at_the_latest_time_seen_and_not_at_the_clock():
    schedule = Schedule(both(place(0, "a", within_seconds=10.0), B))
    cell = new_cell(schedule)
    recent = schedule.condition.sides[0]
    add(cell, [recent], time=100, now=5000)
    add(cell, [B], time=111, now=5001)
    assert decide(schedule, cell) is None
    add(cell, [recent], time=101, now=5002)
    assert decide(schedule, cell).places == (0, 1)


def test_within_and_at_least_ask_for_so_many_recent_ones():
    recent = place(0, "a", within_seconds=10.0, at_least=2)
    schedule = Schedule(both(recent, B))
    cell = new_cell(schedule)
    for moment in (0, 95, 93, 80):
        add(cell, [recent], time=moment, now=100)
    assert cell.places[0].times == [95, 93]
    add(cell, [B], time=104, now=104)
    assert decide(schedule, cell) is None
    add(cell, [recent], time=94, now=105)
    assert decide(schedule, cell).events == 6


def test_an_event_from_the_future_counts_as_of_when_it_was_recorded():
    recent = place(0, "a", within_seconds=10.0)
    schedule = Schedule(both(recent, B))
    cell = new_cell(schedule)
    add(cell, [recent], time=10**9, now=100)
    add(cell, [B], time=105, now=105)
    assert cell.watermark == 105
    assert decide(schedule, cell) is not None


@pytest.mark.parametrize(("then", "kind"), [("run", "run"), ("skip", "skip")])
def test_a_deadline_settles_what_is_missing(then, kind):
    late = OrAfter(0, both(A, B), 60.0, then)
    schedule = Schedule(late)
    cell = new_cell(schedule)
    add(cell, [A], time=0, now=1000)
    assert [(due.slot, due.due) for due in set_deadlines(schedule, cell)] == [(0, 1060.0)]
    assert set_deadlines(schedule, cell) == []  # one timer a slot
    firing = decide(schedule, cell, late=0)
    assert (firing.kind, firing.places, firing.events) == (kind, (0,), 1)
    set_deadlines(schedule, cell)
    assert cell.late == [False]


def test_what_is_late_stays_late_until_the_rest_comes():
    schedule = Schedule(both(OrAfter(0, both(A, B), 60.0), C))
    cell = new_cell(schedule)
    add(cell, [A], time=0, now=0)
    assert decide(schedule, cell, late=0) is None
    assert set_deadlines(schedule, cell) == []
    add(cell, [C], time=100, now=100)
    assert decide(schedule, cell).places == (0, 2)


def test_what_is_late_waits_for_the_tick():
    schedule = Schedule(both(OrAfter(0, both(A, B), 60.0), Tick(0, Every(3600))))
    cell = new_cell(schedule)
    add(cell, [A], time=0, now=0)
    assert decide(schedule, cell, late=0) is None
    assert decide(schedule, cell, ticked=1) is None
    assert decide(schedule, cell, ticked=0).places == (0,)


def test_a_deadline_counts_from_the_first_that_is_still_pending():
    late = OrAfter(0, either(both(A, B), C), 60.0)
    schedule = Schedule(late)
    cell = new_cell(schedule)
    add(cell, [A], time=0, now=100)
    add(cell, [C], time=0, now=130)
    assert decide(schedule, cell).places == (2,)
    assert deadline_due(late, cell) == 160.0


def test_a_tick_holds_for_its_moment_only():
    schedule = Schedule(both(Tick(0, Every(60)), A))
    cell = new_cell(schedule)
    assert decide(schedule, cell, ticked=0) is None
    add(cell, [A], time=0, now=0)
    assert decide(schedule, cell) is None
    assert decide(schedule, cell, ticked=0).places == (0,)
    assert decide(schedule, cell, ticked=0) is None


def test_a_window_is_complete_with_all_its_different_parts():
    schedule = Schedule(A, partitioning=Partitioning(RollUp("day", "hour")))
    cell = new_cell(schedule, "2026-11-20")
    for hour in [*range(23), *range(23)]:
        add(cell, [A], time=0, now=0, key=f"2026-11-20T{hour:02}Z")
        assert decide(schedule, cell) is None
    add(cell, [A], time=0, now=0, key="2026-11-20T23Z")
    assert decide(schedule, cell).events == 47


@pytest.mark.parametrize(("at_least", "wanted"), [(3, 3), (99, 24), (None, 24)])
def test_fewer_parts_may_suffice(at_least, wanted):
    schedule = Schedule(A, partitioning=Partitioning(RollUp("day", "hour"), at_least=at_least))
    assert new_cell(schedule, "2026-11-20").places[0].wanted == wanted


def test_a_key_that_is_no_window_never_completes_one():
    by = Partitioning(by_uri={"x://b": RollUp("day", "hour")})
    schedule = Schedule(both(A, B), partitioning=by)
    cell = new_cell(schedule, "eu")
    add(cell, [A, B], time=0, now=0, key="eu")
    assert decide(schedule, cell) is None


# Versions.


def pending(condition: Condition, names: str, **options) -> tuple[Schedule, Cell]:
    schedule = Schedule(condition, **options)
    cell = new_cell(schedule)
    fold(condition, names, cell=cell)
    return schedule, cell


def test_pending_events_move_to_the_places_of_the_new_version():
    old, cell = pending(both(A, B), "a a")
    new = Schedule(both(place(0, "c"), place(1, "b"), place(2, "a")))
    fresh, moves = carry_over(old, new, cell)
    assert moves == {0: 2, 1: 1}
    assert [state.count for state in fresh.places] == [0, 0, 2]
    assert fresh.places[2].since == cell.places[0].since


def test_another_filter_is_another_place():
    old, cell = pending(both(A, B), "a")
    new = Schedule(both(place(0, "a", where="event.extra.v > 1"), B))
    fresh, moves = carry_over(old, new, cell)
    assert moves == {1: 1}
    assert fresh.places[0].count == 0


@pytest.mark.parametrize(
    "new", [None, Schedule(both(A, B), partitioning=Partitioning())], ids=["none", "partitioned"]
)
def test_what_a_cell_has_done_outlives_everything(new):
    old, cell = pending(both(A, B), "a b a")
    cell.forming, cell.rounds = 7, 3
    fresh, moves = carry_over(old, new, cell)
    assert (fresh.fired, fresh.rounds, fresh.forming, moves, fresh.open) == (1, 3, 0, {}, False)
    again, _ = carry_over(new, old, fresh)
    assert again.fired == 1


def test_a_version_with_another_policy_keeps_what_collects():
    old, cell = pending(both(A, B), "a")
    cell.forming, cell.formed = 7, 2
    fresh, _ = carry_over(old, Schedule(old.condition, Latest()), cell)
    assert (fresh.forming, fresh.formed, fresh.places[0].count) == (7, 2, 1)


# Properties.


def _numbered(part, counter, slots):
    if isinstance(part, Input):
        return Input(next(counter), part.uri, at_least=part.at_least)
    if isinstance(part, OrAfter):
        return OrAfter(next(slots), _numbered(part.side, counter, slots), 60.0, part.then)
    return type(part)(tuple(_numbered(side, counter, slots) for side in part.sides))


conditions = st.recursive(
    st.builds(
        Input, st.just(0), st.sampled_from(("x://a", "x://b", "x://c")), at_least=st.integers(1, 2)
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
    schedule, places = Schedule(condition), list(inputs(condition))
    cell = new_cell(schedule)
    arrived = dict.fromkeys(range(len(places)), 0)
    consumed = 0
    for number, name in enumerate(names):
        matched = [each for each in places if each.uri == f"x://{name}"]
        add(cell, matched, time=number, now=number)
        for each in matched:
            arrived[each.place] += 1
        firing = decide(schedule, cell)
        consumed += firing.events if firing is not None else 0
        assert all(state.count >= 0 for state in cell.places)
        assert sum(arrived.values()) == consumed + sum(state.count for state in cell.places)


@given(conditions, words)
def test_a_side_that_did_not_hold_keeps_its_own(condition, names):
    schedule = Schedule(condition)
    cell = new_cell(schedule)
    for number, name in enumerate(names):
        matched = [each for each in inputs(condition) if each.uri == f"x://{name}"]
        add(cell, matched, time=number, now=number)
        before = [state.count for state in cell.places]
        firing = decide(schedule, cell)
        taken = firing.places if firing is not None else ()
        for each in inputs(condition):
            left = cell.places[each.place].count
            assert left == (0 if each.place in taken else before[each.place])
            if each.place in taken and not list(deadlines(condition)):
                assert before[each.place] >= each.at_least


@given(words, st.randoms(use_true_random=False))
def test_independent_events_may_change_places_before_the_whole_holds(names, dice):
    condition = both(place(0, "a", at_least=40), place(1, "b", at_least=40), C)
    shuffled = list(names)
    dice.shuffle(shuffled)
    counts = []
    for order in (names, shuffled):
        cell = new_cell(Schedule(condition))
        assert fold(condition, " ".join(order), cell=cell) == []
        counts.append([state.count for state in cell.places])
    assert counts[0] == counts[1]


@given(conditions, words, st.floats(1, 10**6))
def test_a_decision_depends_on_the_order_and_not_on_the_clock(condition, names, pause):
    assert fold(condition, " ".join(names)) == fold(condition, " ".join(names), start=pause)


@given(conditions, words)
def test_a_cell_is_itself_after_it_was_stored(condition, names):
    schedule = Schedule(condition)
    kept, stored = new_cell(schedule), new_cell(schedule)
    for number, name in enumerate(names):
        matched = [each for each in inputs(condition) if each.uri == f"x://{name}"]
        for cell in (kept, stored):
            add(cell, matched, time=number, now=number)
        assert decide(schedule, kept) == decide(schedule, stored)
        assert set_deadlines(schedule, kept) == set_deadlines(schedule, stored)
        stored = decode_cell(encode_cell(stored))
        assert stored == kept


@given(conditions, words)
def test_a_cell_does_not_grow_with_what_is_pending(condition, names):
    schedule = Schedule(both(condition, place(99, "never")))
    schedule = Schedule(_numbered(schedule.condition, itertools.count(), itertools.count()))
    few, many = new_cell(schedule), new_cell(schedule)
    for cell, times in ((few, 1), (many, 20)):
        for number in range(times):
            for name in names:
                matched = [p for p in inputs(schedule.condition) if p.uri == f"x://{name}"]
                add(cell, matched, time=number, now=number)
    assert len(encode_cell(many)) <= len(encode_cell(few)) + 4 * len(few.places)


def test_the_default_policy_is_each():
    assert Schedule(A).policy == Each()
