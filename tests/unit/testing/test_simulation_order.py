"""Simulations on request: schedules read from text, and what they make of events."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import (
    DAG,
    Cron,
    Dataset,
    Every,
    Param,
    batch,
    debounce,
    fan_out,
    fixed,
    latest,
    partitioned,
    product,
    roll_up,
)
from pubsubflow.authoring.schedules.timetables import written_schedule
from pubsubflow.errors import InvalidInput
from pubsubflow.model.schedule.simulations import InventedEvent, SimulationOrder
from pubsubflow.model.schedule.written import python_text
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.testing.simulations import order as simulation_order
from pubsubflow.testing.simulations.order import carry_out
from pubsubflow.testing.simulations.schedule_text import read_schedule
from support.specs import task

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
A, B = Dataset("s3://lake/a"), Dataset("s3://lake/b")

seconds = st.sampled_from([0.5, 1, 90, 3600, 5400, 86400]).map(lambda each: timedelta(seconds=each))
datasets = st.builds(
    lambda *parts: _with(*parts),  # noqa: PLW0108 - it is defined below
    st.sampled_from(["a", "b", "*/x"]),
    st.integers(1, 3),
    st.none() | seconds,
    st.booleans(),
)
times = st.sampled_from(
    [Cron("0 6 * * *"), Cron("*/5 * * * 1", tz="Europe/Berlin"), Every(timedelta(minutes=5))]
)


def _with(name, least, age, where):
    found = Dataset.match(f"s3://lake/{name}") if "*" in name else Dataset(f"s3://lake/{name}")
    found = found.at_least(least) if least > 1 else found
    found = found.within(age) if age is not None else found
    return found.where("event.extra.rows > 0 && \"it's\" != 'x'") if where else found


def _joined(sides):
    pairs = st.tuples(sides, sides)
    return (
        st.builds(lambda both: both[0] | both[1], pairs)
        | st.builds(lambda both, data: both & data, datasets, datasets)
        | st.builds(
            lambda side, time, then: (side & A).or_after(time, then=then),
            datasets,
            seconds,
            st.sampled_from(["run", "skip"]),
        )
    )


conditions = st.recursive(datasets | times, _joined, max_leaves=6)
mappers = st.sampled_from(
    [
        fixed("all"),
        roll_up(to="day", of="hour", tz="Europe/Berlin"),
        fan_out(of="day", to="hour"),
        fan_out(table={"eu": ["de", "pl"]}),
        product(roll_up(to="day", of="hour"), fixed("x"), separator="/"),
    ]
)
schedules = (
    conditions
    | st.builds(latest, conditions)
    | st.builds(lambda each, time: batch(A | each, max_events=7, linger=time), conditions, seconds)
    | st.builds(lambda each, time: debounce(A | each, quiet=time), conditions, seconds)
    | st.builds(lambda each, by: partitioned(A | each, by=by, again="each"), conditions, mappers)
    | st.builds(lambda by: debounce(partitioned(A & B, by={A: by}), quiet=1, max_wait=9), mappers)
)


@given(schedules)
def test_what_is_written_as_python_is_the_same_schedule(schedule):
    compiled = written_schedule(schedule).compiled()
    text = python_text(compiled)
    assert text is not None
    assert read_schedule(text) == compiled
    # So does Python itself, where the text is meant to go.
    names = {name: globals()[name] for name in (
        *("Cron", "Dataset", "Every", "batch", "debounce", "fan_out", "fixed", "latest"),
        *("partitioned", "product", "roll_up", "timedelta"),
    )}  # fmt: skip
    assert written_schedule(eval(text, names)).compiled() == compiled


def test_a_schedule_is_read_as_it_stands_in_a_dag_file():
    text = """
from pubsubflow import Dataset, dag
orders, rates = Dataset("s3://lake/a", name="Orders"), Dataset("s3://lake/b")

@dag(schedule=(orders & rates).or_after(timedelta(hours=1 + 1)), tags=["x"])
def report():
    print("this never runs")
"""
    expected = (A & B).or_after(timedelta(hours=2)).compiled()
    assert read_schedule(text) == expected
    assert read_schedule("'@daily'") == Cron("0 0 * * *").compiled()
    assert read_schedule('[Dataset("s3://lake/a"), Dataset("s3://lake/b")]') == (A & B).compiled()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("__import__('os').system('true')", "line 1: "),
        ("().__class__", "is not understood here"),
        ("Dataset('s3://a').uri", "is not understood here"),
        ("Dataset.__init__('s3://a')", "is not understood here"),
        ("[x for x in [1]]", "is not understood here"),
        ("lambda: 1", "is not understood here"),
        ("open('/etc/passwd')", "open() is unknown"),
        ("orders & rates", "line 1: 'orders' is not defined"),
        ("Cron('61 * * * *')", "line 1: "),
        ("Dataset('nothing')", "line 1: "),
        ("Dataset('s3://a').within(-1)", "within"),
        ("'a' * 10000000000", "is not understood here"),
        ("timedelta(hours=9 ** 9 ** 9)", "is not understood here"),
        ("1 & 2", "join datasets and timetables"),
        ("x = Dataset('s3://a')\n", "it ends without a schedule"),
        ("Dataset('s3://a') &", "line 1: it is not Python"),
        ("(" * 3000 + ")" * 3000, "it is not Python"),
        ("-" * 200 + "1", "nested deeper than 40"),
        (" & ".join(["Dataset('s3://a')"] * 60), "nested deeper than 40"),
        ("#" * 9000, "more than 8000 characters"),
        ("None", "ends without a schedule"),
        ("Dataset('s3://a').where('event.nothing == 1')", "line 1: where"),
    ],
)
def test_whatever_else_stands_in_the_text_is_refused_and_never_run(text, fault):
    with pytest.raises(InvalidInput) as caught:
        read_schedule(text)
    assert fault in str(caught.value)


def order(text, events, hours=12, **more):
    invented = tuple(
        InventedEvent(f"s3://lake/{name}", NOON + timedelta(minutes=at), **options)
        for name, at, options in ((*each, {})[:3] for each in events)
    )
    until = NOON + timedelta(hours=hours)
    return SimulationOrder(text, more.pop("spec", None), invented, NOON, until, **more)


BOTH = 'Dataset("s3://lake/a").where("event.extra.n > 0") & Dataset("s3://lake/b")'


def test_runs_and_what_became_of_the_other_events():
    events = [("b", 10), ("a", 5, {"extra": {"n": 0}}), ("a", 20, {"extra": {"n": 1}}), ("c", 1),
              ("b", 30)]  # fmt: skip
    found = carry_out(order(BOTH, events))
    assert [(run.at, run.events, run.cause) for run in found.runs] == [
        (NOON + timedelta(minutes=20), [0, 2], "s3://lake/a was updated")
    ]
    assert [(each.event, each.outcome, each.place) for each in found.outcomes] == [
        (1, "filtered", 0),
        (3, "unseen", None),
        (4, "pending", 1),
    ]
    (waiting,) = found.waiting
    assert waiting.waits_for == "s3://lake/a"
    assert [side.holds for side in waiting.condition.sides] == [False, True]
    assert found.datasets == ["s3://lake/a", "s3://lake/b"]
    assert found.python == BOTH.replace('"', "'").replace("'event", "'event")


def test_the_end_of_the_time_is_a_cursor():
    events = [("a", 5, {"extra": {"n": 1}}), ("b", 90)]
    before = carry_out(order(BOTH, events, hours=1))
    assert (before.runs, before.waiting[0].waits_for) == ([], "s3://lake/b")
    assert len(carry_out(order(BOTH, events, hours=2)).runs) == 1


def test_ticks_and_partitions():
    found = carry_out(order('Cron("0 * * * *")', [], hours=3))
    assert [run.kind for run in found.runs] == ["cron"] * 3
    assert found.next_tick == NOON + timedelta(hours=4)
    text = 'partitioned(Dataset("s3://lake/a") & Dataset("s3://lake/b"))'
    events = [("a", 1, {"partition": "x"}), ("b", 2, {"partition": "x"}),
              ("b", 3, {"partition": "y"})]  # fmt: skip
    found = carry_out(order(text, events))
    assert [run.partition for run in found.runs] == ["x"]
    assert [(each.partition, each.waits_for) for each in found.waiting] == [("y", "s3://lake/a")]


def test_a_dag_brings_its_params_and_another_schedule_can_be_tried_on_it():
    with DAG(
        "x", schedule=A, params={"n": Param(type="integer")}, params_from={"n": "event.extra.n"}
    ) as dag:
        task("t")
    spec = STORED_SPEC.encode(dag.to_spec("x.py", ""))
    events = [("a", 1, {"extra": {"n": 3}}), ("a", 2)]
    found = carry_out(order(None, events, spec=spec))
    assert [run.params for run in found.runs] == [{"n": 3}, {}]
    assert found.runs[1].refused
    assert not carry_out(order('Dataset("s3://lake/b")', events, spec=spec)).runs


def test_what_is_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(simulation_order, "MOST_STEPS", 200)
    monkeypatch.setattr(simulation_order, "MOST_RUNS", 10)
    with pytest.raises(InvalidInput, match="more than 200 ticks"):
        carry_out(order("Every(1)", [], hours=1))
    found = carry_out(order("Every(60)", [], hours=1))
    assert (len(found.runs), found.more_runs) == (10, 50)
