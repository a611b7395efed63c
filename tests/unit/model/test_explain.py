"""What an expression lacks, and when it holds without further events."""

from datetime import UTC, datetime

import pytest

from pubsubflow.model.schedule.condition_state import add_event, decide, new_condition_state
from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    DatasetInput,
    OrAfter,
    ScheduleSpec,
    Tick,
)
from pubsubflow.model.schedule.explain import as_clause, parts, still_needed, usable_events
from pubsubflow.model.schedule.partitions import (
    Identity,
    Partitioning,
    Product,
    RollUp,
    keys_of,
    map_key,
    parts_of,
)
from pubsubflow.model.schedule.timetable import CronSpec

A, B, C = DatasetInput(0, "x://a"), DatasetInput(1, "x://b"), DatasetInput(2, "x://c")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
TICK = datetime(2026, 11, 20, 16, tzinfo=UTC)
AT_TICK = Tick(0, CronSpec("0 16 * * *"))


def state_with(schedule, *places, key=None):
    state = new_condition_state(schedule, key)
    for place in places:
        add_event(state, [place], time=NOW, now=NOW)
    return state


@pytest.mark.parametrize(
    ("condition", "there", "needed"),
    [
        (AllOf((A, B)), [], "x://a and x://b"),
        (AllOf((A, B)), [A], "x://b"),
        (AnyOf((AllOf((A, B)), C)), [], "(x://a and x://b) or x://c"),
        (AnyOf((AllOf((A, B)), C)), [A], "x://b or x://c"),
        (AllOf((AnyOf((A, B)), C)), [C], "x://a or x://b"),
        (OrAfter(0, AllOf((A, B)), 60), [B], "x://a"),
        (AllOf((AT_TICK, A)), [A], "the time of Cron('0 16 * * *', tz='UTC')"),
        (
            DatasetInput(0, "x://a", at_least=3),
            [DatasetInput(0, "x://a", at_least=3)],
            "2 more events of x://a",
        ),
        (DatasetInput(0, "x://*", pattern=True), [], "a match of x://*"),
    ],
)
def test_what_is_lacking_is_written_for_people(condition, there, needed):
    schedule = ScheduleSpec(condition)
    assert still_needed(schedule, state_with(schedule, *there)) == needed


def test_too_old_events_do_not_count_as_there():
    place = DatasetInput(0, "x://a", at_least=2, within_seconds=60)
    schedule = ScheduleSpec(AllOf((place, B)))
    state = new_condition_state(schedule)
    add_event(state, [place], time=NOW - 120, now=NOW)
    add_event(state, [place], time=NOW, now=NOW)
    assert usable_events(place, state) == 1
    assert still_needed(schedule, state) == "1 more event of x://a and x://b"


@pytest.mark.parametrize(
    ("condition", "there", "due"),
    [
        (A, [], None),
        (AT_TICK, [], TICK),
        (AllOf((AT_TICK, A)), [], None),
        (AllOf((AT_TICK, A)), [A], TICK),
        (AnyOf((AT_TICK, A)), [], TICK),
        (OrAfter(0, AllOf((A, B)), 60), [], None),
        (OrAfter(0, AllOf((A, B)), 60), [A], datetime.fromtimestamp(NOW + 60, UTC)),
        (OrAfter(0, AllOf((A, B)), 60, then="skip"), [A], None),
        (AllOf((OrAfter(0, AllOf((A, B)), 60), C)), [A], None),
    ],
)
def test_it_is_told_when_it_holds_by_itself(condition, there, due):
    schedule = ScheduleSpec(condition)
    clause = as_clause(condition, state_with(schedule, *there), {0: TICK})
    assert clause.due_by_itself() == due


def test_a_clause_holds_exactly_when_a_run_would_start():
    condition = AnyOf((AllOf((A, B)), C))
    schedule = ScheduleSpec(condition)
    for there in ([], [A], [B], [C], [A, B], [A, C]):
        state = state_with(schedule, *there)
        holds = as_clause(condition, state, {}).holds
        assert holds == (decide(schedule, state) is not None), there


def test_the_first_missing_parts_of_a_window_are_named():
    by_uri = {"x://a": RollUp("day", "hour", "Europe/Warsaw"), "x://b": Identity()}
    schedule = ScheduleSpec(AllOf((A, B)), partitioning=Partitioning(Identity(), by_uri))
    state = new_condition_state(schedule, "2026-11-20")
    add_event(state, [A], time=NOW, now=NOW, key="2026-11-19T23Z")
    found = parts(schedule, A, state, "2026-11-20")
    assert (found.wanted, found.there, found.missing[0]) == (24, 1, "2026-11-20T00Z")
    assert len(found.missing) == 10
    assert parts(schedule, B, state, "2026-11-20") is None
    odd = new_condition_state(schedule, "eu")
    assert parts(schedule, A, odd, "eu") is None
    assert "which has no keys" in still_needed(schedule, odd, "eu")


@pytest.mark.parametrize(
    ("mapper", "key"),
    [
        (Identity(), "eu"),
        (RollUp("day", "hour", "Europe/Warsaw"), "2026-10-25"),
        (RollUp("year", "month"), "2026"),
        (Product((RollUp("week", "day"), Identity())), "2026-W47|eu"),
    ],
)
def test_the_keys_that_make_up_a_window_are_those_that_map_to_it(mapper, key):
    found = list(keys_of(mapper, key))
    assert len(set(found)) == len(found) == parts_of(mapper, key)
    assert {to for each in found for to, _ in map_key(mapper, each)} == {key}
