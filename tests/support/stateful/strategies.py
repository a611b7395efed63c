"""Hypothesis strategies for scenarios: DAGs with random schedules, and rounds of actions."""

import itertools
from datetime import timedelta

from hypothesis import strategies as st

from pubsubflow.model.schedule.conditions import (
    AllOf,
    AnyOf,
    Batch,
    DatasetInput,
    Debounce,
    Each,
    Latest,
    OrAfter,
    ScheduleSpec,
    Tick,
)  # fmt: skip
from pubsubflow.model.schedule.partitions import Identity, Partitioning, RollUp
from pubsubflow.model.schedule.timetable import IntervalSpec
from pubsubflow.model.wire.messages import NewEvent

NAMES = ("a", "b", "c", "p/1", "p/2")
SUBSCRIBED = ("a", "b", "c", "p/*")
PARTITIONS = (None, "2026-11-20", "2026-11-20T00Z", "2026-11-20T01Z", "2026-11-21T00Z")


@st.composite
def inputs(draw):
    name = draw(st.sampled_from(SUBSCRIBED))
    return DatasetInput(
        0,
        f"x://{{}}/{name}",
        pattern="*" in name,
        where=draw(st.sampled_from((None, None, None, None, "event.extra.v > 2"))),
        at_least=draw(st.sampled_from((1, 1, 1, 1, 1, 2, 3))),
        within_seconds=draw(st.sampled_from((None, None, None, None, 40.0, 400.0))),
    )


def wider(inner):
    sides = st.lists(inner, min_size=2, max_size=3).map(tuple)
    late = st.tuples(st.sampled_from((25.0, 100.0)), st.sampled_from(("run", "skip")))
    return st.one_of(
        st.builds(AllOf, sides),
        st.builds(AllOf, sides),
        st.builds(AnyOf, sides),
        st.builds(lambda side, fields: OrAfter(0, side, *fields), st.builds(AllOf, sides), late),
    )


leaves = st.one_of(
    inputs(),
    inputs(),
    inputs(),
    st.sampled_from([Tick(0, IntervalSpec(60.0)), Tick(0, IntervalSpec(90.0))]),
)
conditions = st.recursive(leaves, wider, max_leaves=4)
policies = st.one_of(
    st.just(Each()),
    st.just(Each()),
    st.builds(Batch, st.integers(1, 5), st.sampled_from((15.0, 90.0))),
    st.builds(Debounce, st.just(20.0), st.sampled_from((None, 50.0))),
    st.just(Latest()),
)
partitionings = st.sampled_from(
    (
        None,
        None,
        None,
        Partitioning(Identity()),
        Partitioning(Identity()),
        Partitioning(Identity(), again="never"),
        Partitioning(RollUp("day", "hour"), at_least=2),
        Partitioning(RollUp("day", "hour"), at_least=2, again="each"),
    )
)


def numbered(condition, name: str):
    """Number inputs and slots, left to right, outer before inner; name the datasets."""
    index, tick, late = itertools.count(), itertools.count(), itertools.count()

    def walk(part):
        match part:
            case DatasetInput():
                fields = {field: getattr(part, field) for field in part.__struct_fields__}
                return DatasetInput(**fields | {"index": next(index), "uri": part.uri.format(name)})
            case Tick():
                return Tick(next(tick), part.timetable)
            case OrAfter():
                slot = next(late)
                return OrAfter(slot, walk(part.side), part.seconds, part.then)
            case AllOf() | AnyOf():
                return type(part)(tuple(map(walk, part.sides)))

    return walk(condition)


def schedule(drawn, name: str) -> ScheduleSpec:
    condition, policy, partitioning = drawn
    return ScheduleSpec(numbered(condition, name), policy, partitioning)


schedules = st.tuples(conditions, policies, partitionings)
dags = st.fixed_dictionaries(
    {
        "schedule": schedules,
        "max_active_runs": st.integers(1, 3),
        "on_pause": st.sampled_from(("hold", "drop")),
        "catchup": st.booleans(),
        "particular": st.sampled_from((False, False, True)),
        "emits": st.sampled_from((None, None, "c", "p/2")),
    }
)


@st.composite
def events(draw):
    extra = {"v": draw(st.integers(0, 5))} if draw(st.integers(0, 9)) else {}
    if draw(st.integers(0, 5)) == 0:
        extra["rerun"] = True
    return (
        draw(st.sampled_from(NAMES)),
        extra,
        draw(st.sampled_from(PARTITIONS)),
        draw(st.sampled_from((None, None, None, -30, -200, 50))),
    )


def new_event(drawn, name: str, now) -> NewEvent:
    short, extra, partition, age = drawn
    moment = None if age is None else now + timedelta(seconds=age)
    return NewEvent(f"x://{name}/{short}", extra, partition, moment)


manager = st.integers(0, 1)
dag_number = st.integers(0, 2)
posts = st.tuples(
    st.just("post"),
    manager,
    st.lists(events(), min_size=1, max_size=4),
    st.sampled_from((None, None, "k1", "k2")),
)
seen = st.tuples(st.just("see"), st.lists(events(), min_size=1, max_size=2), st.booleans())
steps = st.one_of(
    seen,
    *(posts for _ in range(8)),
    st.tuples(st.just("answer"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from(((0,), (1,), (0, 1))), st.sampled_from((5, 20, 70))),
    st.tuples(
        st.just("time"), st.sampled_from(((0,), (1,), (0, 1))), st.sampled_from((20, 70, 200))
    ),
    st.tuples(st.just("pause"), manager, dag_number, st.booleans()),
    st.tuples(st.just("pause"), manager, dag_number, st.booleans()),
    st.tuples(st.just("nap"), manager, dag_number, st.sampled_from((70, 200))),
    st.tuples(st.just("nap"), manager, dag_number, st.sampled_from((70, 200))),
    st.tuples(st.just("start"), manager, dag_number),
    st.tuples(
        st.just("replay"),
        manager,
        dag_number,
        st.sampled_from((None, 30, 100, 400)),
        st.sampled_from((None, None, 20, 100)),
    ),
    st.tuples(st.just("break")),
    st.tuples(st.just("change"), dag_number, schedules),
)
rounds = st.lists(
    st.tuples(st.booleans(), st.lists(steps, min_size=2, max_size=6)), min_size=10, max_size=16
)
scenarios = st.fixed_dictionaries(
    {
        "dags": st.lists(dags, min_size=3, max_size=3),
        "rounds": rounds,
        "dice": st.integers(0, 2**32),
        "late_comer": st.sampled_from((None, "now", "earliest")),
    }
)
