"""Admission of runs without servers: params, events that travel along, ancestry."""

from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.schedules.event_params import run_params
from pubsubflow.manager.spec_cache import DagVersion
from pubsubflow.manager.working_state import (
    INLINE_EVENTS,
    LockedDag,
    RunDraft,
    inline_events,
    longest_ancestry,
    new_event,
)
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.messages import EventInfo, RunInfo, decode_run_info, encode
from support.specs import dag, task, uri

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(number: int = 1, *, ancestry: tuple[int, ...] = (), **extra):
    info = EventInfo(str(uuid4()), uri("a"), extra, None, NOW, "api")
    found = new_event(info, now=NOW, ancestry=ancestry)
    found.id = number
    return found


def draft(kind: str = "dataset", **options) -> RunDraft:
    spec = dag("d", task("t"), on="a", **options)
    return RunDraft(1, uuid4(), LockedDag.idle(DagVersion(1, 7, spec)), "key", kind, "cause", NOW)


def test_params_are_computed_from_the_events_where_the_dag_says_so():
    options = {"params": {"n": 0}, "params_from": {"n": "events[0].extra.n"}}
    assert run_params(draft(), [event(n=3).info]) == {}
    assert run_params(draft(**options), [event(n=3).info]) == {"n": 3}
    with pytest.raises(InvalidInput, match="more than 20000 events"):
        run_params(draft(**options), None)


def test_a_tick_without_events_takes_the_defaults_and_one_with_events_does_not():
    options = {"params": {"n": 0}, "params_from": {"n": "events[0].extra.n"}}
    assert run_params(draft("cron", **options), []) == {"n": 0}
    assert run_params(draft("cron", **options), [event(n=3).info]) == {"n": 3}


def test_events_travel_as_they_were_encoded_once():
    found = event(n=3)
    info = RunInfo(1, "r", "d", "dataset", {}, None, None, "", NOW, inline_events([found]))
    assert decode_run_info(encode(info)).events == (found.info,)
    assert msgspec.json.decode(found.extra) == {"n": 3}


def test_too_many_or_too_large_events_do_not_travel_along():
    assert inline_events([event()] * INLINE_EVENTS) is not None
    assert inline_events([event()] * (INLINE_EVENTS + 1)) is None
    assert inline_events([event(pad="x" * 100_000), event(pad="x" * 100_000)]) is None


def test_the_ancestry_of_a_run_is_that_in_which_its_dag_occurs_most():
    events = [event(ancestry=(1, 2, 3, 4)), event(ancestry=(7, 1, 7)), event(ancestry=(7,))]
    assert longest_ancestry(events, 7) == (7, 1, 7)
    assert longest_ancestry([], 7) == ()


def test_a_queued_run_keeps_later_ones_behind_it():
    locked = LockedDag.idle(DagVersion(1, 7, dag("d", task("t"), max_active_runs=1)))
    assert [locked.admit() for _ in range(2)] == [RunState.RUNNING, RunState.QUEUED]
    locked.end_run()
    assert locked.admit() is RunState.QUEUED, "the one that is queued is first"
    locked.start_queued()
    assert (locked.active, locked.queued) == (1, 1)
