"""What users write as a schedule, and what the manager decides with."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import (
    DAG,
    Cron,
    Dataset,
    Every,
    batch,
    debounce,
    each,
    fan_out,
    fixed,
    identity,
    latest,
    partitioned,
    product,
    roll_up,
)
from pubsubflow.errors import DefinitionError
from pubsubflow.model.schedule import conditions, timetable
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
    describe_schedule,
)
from pubsubflow.model.schedule.partitions import (
    FanOut,
    Fixed,
    Identity,
    Partitioning,
    Product,
    RollUp,
)
from pubsubflow.model.spec import DagSpec
from pubsubflow.testing import event

a, b, c = (Dataset(f"s3://lake/{name}") for name in "abc")
A, B, C = a.uri, b.uri, c.uri
HOURLY = timetable.CronSpec("0 * * * *")
MINUTE = timetable.IntervalSpec(60.0)


def compiled(schedule: Any, **options: Any) -> DagSpec:
    spec = DAG("x", schedule=schedule, **options).to_spec("test_schedules.py", "hash")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=DagSpec) == spec
    return spec


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (a.at_least(3), DatasetInput(0, A, at_least=3)),
        (a.at_least(1), DatasetInput(0, A)),
        (
            a.within(timedelta(hours=12)) & b,
            AllOf((DatasetInput(0, A, within_seconds=43200.0), DatasetInput(1, B))),
        ),
        (a.within(5), DatasetInput(0, A, within_seconds=5.0)),
        (a.where("event.extra.rows > 0"), DatasetInput(0, A, where="event.extra.rows > 0")),
        (
            a.where("event.extra.rows > 0").at_least(3).within(60),
            DatasetInput(0, A, where="event.extra.rows > 0", at_least=3, within_seconds=60.0),
        ),
        (
            a.within(60).at_least(3).where("event.partition == 'x'").where("size(event.uri) > 1"),
            DatasetInput(
                0,
                A,
                where="(event.partition == 'x') && (size(event.uri) > 1)",
                at_least=3,
                within_seconds=60.0,
            ),
        ),
        (Dataset.match("s3://LAKE/*/orders/"), DatasetInput(0, "s3://lake/*/orders", pattern=True)),
        (
            Dataset.match("s3://lake/**").where("event.extra.ok").at_least(2),
            DatasetInput(0, "s3://lake/**", pattern=True, where="event.extra.ok", at_least=2),
        ),
        (a & a, AllOf((DatasetInput(0, A), DatasetInput(1, A)))),
        (
            (a & b).or_after(timedelta(hours=2)),
            OrAfter(0, AllOf((DatasetInput(0, A), DatasetInput(1, B))), 7200.0),
        ),
        (
            (a.or_after(5, then="skip") & b).or_after(60) | c.or_after(7),
            AnyOf(
                (
                    OrAfter(
                        0,
                        AllOf((OrAfter(1, DatasetInput(0, A), 5.0, "skip"), DatasetInput(1, B))),
                        60.0,
                    ),
                    OrAfter(2, DatasetInput(2, C), 7.0),
                )
            ),
        ),
        (Cron("0 * * * *") | a, AnyOf((Tick(0, HOURLY), DatasetInput(0, A)))),
        (a | Cron("0 * * * *"), AnyOf((DatasetInput(0, A), Tick(0, HOURLY)))),
        (Cron("0 * * * *") & a, AllOf((Tick(0, HOURLY), DatasetInput(0, A)))),
        ([Cron("0 * * * *"), a], AllOf((Tick(0, HOURLY), DatasetInput(0, A)))),
        (
            (Every(60) & a) | (Cron("0 * * * *") & [b, c]) | Every(60),
            AnyOf(
                (
                    AllOf((Tick(0, MINUTE), DatasetInput(0, A))),
                    AllOf((Tick(1, HOURLY), DatasetInput(1, B), DatasetInput(2, C))),
                    Tick(2, MINUTE),
                )
            ),
        ),
        (
            (Every(60) | a) & (Cron("0 * * * *") | b),
            AllOf(
                (
                    AnyOf((Tick(0, MINUTE), DatasetInput(0, A))),
                    AnyOf((Tick(1, HOURLY), DatasetInput(1, B))),
                )
            ),
        ),
        (
            (Every(60) & a).or_after(5) & Every(60),
            AllOf((OrAfter(0, AllOf((Tick(0, MINUTE), DatasetInput(0, A))), 5.0), Tick(1, MINUTE))),
        ),
    ],
    ids=repr,
)
def test_conditions_compile(schedule: Any, expected: conditions.Condition) -> None:
    assert compiled(schedule).schedule == ScheduleSpec(expected)


@pytest.mark.parametrize(
    ("schedule", "policy"),
    [
        (a, Each()),
        (each([a]), Each()),
        (batch(a), Batch(100, 10.0)),
        (batch(a, max_events=3, linger=timedelta(minutes=1)), Batch(3, 60.0)),
        (batch(a, 3, 5), Batch(3, 5.0)),
        (debounce(a, quiet=timedelta(seconds=3)), Debounce(3.0)),
        (debounce(a, quiet=3, max_wait=timedelta(minutes=1)), Debounce(3.0, 60.0)),
        (latest(a), Latest()),
    ],
    ids=repr,
)
def test_policies_compile(schedule: Any, policy: conditions.Policy) -> None:
    assert compiled(schedule).schedule == ScheduleSpec(DatasetInput(0, A), policy)


def test_time_alone_can_be_latest() -> None:
    assert compiled(latest(Every(60))).schedule == ScheduleSpec(Tick(0, MINUTE), Latest())


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (identity, Identity()),
        (fixed("all"), Fixed("all")),
        (roll_up(to="day", of="hour", tz="Europe/Warsaw"), RollUp("day", "hour", "Europe/Warsaw")),
        (fan_out(of="day", to="hour"), FanOut("day", "hour")),
        (
            fan_out(table={"eu": ["de", "pl", "de"], "us": "us", "as": {"jp", "in"}}),
            FanOut(table={"eu": ("de", "pl"), "us": ("us",), "as": ("in", "jp")}),
        ),
        (
            product(roll_up(to="day", of="hour"), identity),
            Product((RollUp("day", "hour"), Identity())),
        ),
        (product(identity, fixed("x"), separator="/"), Product((Identity(), Fixed("x")), "/")),
    ],
    ids=repr,
)
def test_mappers_compile(by: Any, expected: Any) -> None:
    spec = compiled(partitioned(a & b, by=by))
    both = AllOf((DatasetInput(0, A), DatasetInput(1, B)))
    assert spec.schedule == ScheduleSpec(both, partitioning=Partitioning(expected))


def test_a_key_runs_once_where_it_is_a_window_or_declared_so() -> None:
    windows = roll_up(to="day", of="hour")
    for by, again, once in (
        (identity, None, False),
        (identity, "never", True),
        (windows, None, True),
        (product(windows, identity), None, True),
        ({a: windows}, None, True),
        (windows, "each", False),
    ):
        spec = compiled(partitioned(a, by=by, again=again))
        assert spec.schedule is not None
        assert spec.schedule.partitioning is not None
        assert spec.schedule.partitioning.runs_once is once, (by, again)
    with pytest.raises(DefinitionError, match="again= takes 'each' or 'never'"):
        partitioned(a, again="sometimes")  # type: ignore[arg-type]


def test_datasets_can_have_mappers_of_their_own() -> None:
    days = roll_up(to="day", of="hour")
    lake = Dataset.match("s3://lake/x/*")
    by = {a: days, "s3://LAKE/b": fixed("x"), lake: identity}
    spec = compiled(batch(partitioned(a & b & c & lake, by=by, at_least=20)))
    assert spec.schedule is not None
    assert spec.schedule.policy == Batch()
    assert spec.schedule.partitioning == Partitioning(
        Identity(),
        {A: RollUp("day", "hour"), B: Fixed("x"), "s3://lake/x/*": Identity()},
        20,
    )


def test_params_can_come_from_events() -> None:
    class Params(msgspec.Struct):
        day: str
        rows: list[int]

    texts = {"day": "events[0].partition", "rows": "events.map(e, e.extra.rows)"}
    assert compiled(a, params=Params, params_from=texts).params_from == texts
    more = {"depth": "partition == null ? size(events) : int(event.extra.depth)"}
    assert compiled(a, params={"depth": 1}, params_from=more).params_from == more


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("now", "now"),
        ("earliest", "earliest"),
        ("01930000-0000-7000-8000-00000000000A", "01930000-0000-7000-8000-00000000000a"),
        (datetime(2026, 1, 1), "2026-01-01T00:00:00+00:00"),  # noqa: DTZ001 - as users write it
        (
            datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "2025-12-31T23:00:00+00:00",
        ),
    ],
)
def test_a_subscription_can_begin_in_the_past(origin: Any, expected: str) -> None:
    assert compiled(a, subscribe_from=origin).subscribe_from == expected


def test_a_subscription_can_begin_at_an_event() -> None:
    first = event(a, time=datetime(2026, 1, 1, tzinfo=UTC))
    assert compiled(a, subscribe_from=first).subscribe_from == first.event_id


def test_several_crons_of_one_zone_give_bounds_theirs() -> None:
    crons = Cron("0 1 * * *", tz="Europe/Warsaw") | Cron("0 2 * * *", tz="Europe/Warsaw") & a
    start = compiled(crons, start=datetime(2026, 1, 1)).start  # noqa: DTZ001 - as users write it
    assert start is not None
    assert start.utcoffset() == timedelta(hours=1)


# Random expressions ----------------------------------------------------------------------------

wheres = st.sampled_from([None, "event.extra.rows > 0", "event.partition == 'x'"])
sources = st.sampled_from([a, b, c, Dataset.match("s3://lake/*/x"), Dataset.match("s3://**/y")])


@st.composite
def demands(draw: st.DrawFn) -> Any:
    place = draw(sources)
    if (where := draw(wheres)) is not None:
        place = place.where(where)
    if (least := draw(st.integers(0, 4))) > 0:
        place = place.at_least(least)
    if (age := draw(st.integers(0, 900))) > 0:
        place = place.within(timedelta(seconds=age))
    return place


def larger(sides: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    late = st.tuples(sides, st.integers(1, 900), st.sampled_from(["run", "skip"]))
    return st.one_of(
        st.tuples(sides, sides).map(lambda pair: pair[0] & pair[1]),
        st.tuples(sides, sides).map(lambda pair: pair[0] | pair[1]),
        late.map(lambda given: given[0].or_after(given[1], then=given[2])),
        sides.map(lambda side: side | Cron("0 * * * *")),
        sides.map(lambda side: (Every(60) | a) & side),
    )


expressions = st.recursive(demands(), larger, max_leaves=12)


@st.composite
def schedules(draw: st.DrawFn) -> Any:
    found = draw(expressions)
    if draw(st.booleans()):
        found = partitioned(found)
    wrap = draw(st.sampled_from([None, each, batch, latest]))
    return found if wrap is None else wrap(found)


def read_again(text: str) -> Any:
    """Read what `describe_schedule` writes as Python."""
    text = re.sub(r"match\((s3:[^\s()]+)\)", r"Dataset.match('\1')", text)
    text = re.sub(r"(?<!')s3:[^\s().,']+", lambda found: f"Dataset({found[0]!r})", text)
    text = re.sub(r"(\d) s\b", r"\1", text)
    names = {"Dataset": Dataset, "Cron": Cron, "Every": Every, "batch": batch, "latest": latest}
    return eval(text, names | {"partitioned": partitioned})


@given(schedules())
def test_any_expression_compiles_and_is_numbered_left_to_right(schedule: Any) -> None:
    spec = compiled(schedule)
    assert spec.schedule is not None
    condition = spec.schedule.condition
    for numbers in (
        [place.index for place in conditions.inputs(condition)],
        [tick.slot for tick in conditions.ticks(condition)],
        [deadline.slot for deadline in conditions.deadlines(condition)],
    ):
        assert numbers == list(range(len(numbers)))


@given(schedules())
def test_what_is_written_about_an_expression_can_be_read_as_one(schedule: Any) -> None:
    found = compiled(schedule).schedule
    text = describe_schedule(found)
    assert "\n" not in text
    assert compiled(read_again(text)).schedule == found
