"""Schedules that cannot be: each mistake names file, line and remedy where it is written."""

import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pubsubflow import (
    DAG,
    Cron,
    Dataset,
    DefinitionError,
    EmptyOperator,
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

a, b = Dataset("s3://lake/a"), Dataset("s3://lake/b")
lake = Dataset.match("s3://lake/*")
hourly = Cron("0 * * * *")
days = roll_up(to="day", of="hour")

MISTAKES: dict[str, tuple[Any, str]] = {
    "no CEL": (lambda: a.where("event.extra.rows >"), "is not a CEL expression"),
    "no text": (lambda: a.where(5), "as a string"),
    "empty CEL": (lambda: a.where(" "), "as a string"),
    "unknown variable": (
        lambda: a.where("extra.rows > 0"),
        "uses 'extra'; the variables here are event",
    ),
    "at_least none": (lambda: a.at_least(0), "must be at least 1"),
    "at_least negative": (lambda: a.at_least(-1), "must be at least 1"),
    "at_least a float": (lambda: a.at_least(1.5), "must be a whole number"),
    "at_least a bool": (lambda: a.at_least(events=True), "must be a whole number"),
    "at_least twice": (lambda: a.at_least(2).at_least(3), "keep one of them"),
    "within nothing": (lambda: a.within(timedelta(0)), "more than zero"),
    "within negative": (lambda: a.within(timedelta(-1)), "negative"),
    "within endless": (lambda: a.within(float("inf")), "infinite"),
    "within a text": (lambda: a.within("1h"), "must be a timedelta"),
    "within twice": (lambda: a.within(1).within(2), "keep one of them"),
    "within on an or": (lambda: (a | b).within(5), "write it on each one"),
    "within on an and": (lambda: (a & b).within(5), "write it on each one"),
    "at_least on an or": (lambda: (a | b).at_least(2), "write it on each one"),
    "where on a time": (lambda: hourly.where("event.extra.x"), "belongs to a dataset"),
    "where behind a deadline": (
        lambda: a.or_after(5).where("event.extra.x"),
        "belongs to a dataset",
    ),
    "where behind a policy": (lambda: batch(a).where("event.extra.x"), "inside of batch(…)"),
    "or_after nothing": (lambda: a.or_after(0), "more than zero"),
    "or_after negative": (lambda: a.or_after(timedelta(-1)), "negative"),
    "or_after else": (lambda: a.or_after(5, then="stop"), "must be 'run' or 'skip', not 'stop'"),
    "or_after a time": (lambda: hourly.or_after(5), "holds no dataset"),
    "or_after a policy": (lambda: batch(a).or_after(5), "batch((a & b).or_after(…))"),
    "two times": (lambda: hourly & Every(5), "join timetables with `|`"),
    "two times in a list": (
        lambda: DAG("d", schedule=[hourly, a, Every(5)]),
        "join timetables with `|`",
    ),
    "two times far apart": (lambda: (hourly & a) & (Every(5) | (hourly & b)), "join timetables"),
    "a policy in an and": (lambda: batch(a) & b, "batch(…) is a complete schedule"),
    "a policy in an or": (lambda: b | latest(a), "latest(…) is a complete schedule"),
    "a policy in a list": (
        lambda: DAG("d", schedule=[a, each(b)]),
        "each(…) is a complete schedule",
    ),
    "a partition in an and": (lambda: partitioned(a) & b, "partitioned(…) is a complete schedule"),
    "two policies": (lambda: batch(latest(a)), "keep one of them"),
    "a policy inside a partition": (lambda: partitioned(batch(a)), "write batch(partitioned(…))"),
    "partitioned twice": (lambda: partitioned(partitioned(a)), "keep one of them"),
    "partitioned time": (lambda: partitioned(hourly), "holds no dataset"),
    "batched time": (lambda: batch(hourly), "no events to collect"),
    "debounced time": (lambda: debounce(Every(5), quiet=5), "no events to collect"),
    "batch of none": (lambda: batch(a, max_events=0), "must be at least 1"),
    "batch without linger": (lambda: batch(a, linger=0), "more than zero"),
    "batch of nothing": (lambda: batch(None), "None is not a condition"),
    "batch of a text": (lambda: batch("s3://lake/a"), "write Cron("),
    "quiet negative": (lambda: debounce(a, quiet=-1), "negative"),
    "max_wait too short": (lambda: debounce(a, quiet=5, max_wait=4), "is shorter than quiet"),
    "by something": (lambda: partitioned(a, by="day"), "is not a partition mapper"),
    "by a function": (lambda: partitioned(a, by=roll_up), "is not a partition mapper"),
    "by for a stranger": (lambda: partitioned(a, by={b: identity}), "names 's3://lake/b'"),
    "by something for one": (lambda: partitioned(a, by={a: "day"}), "is not a partition mapper"),
    "at_least without parts": (lambda: partitioned(a, at_least=3), "counts the parts of a window"),
    "at_least no part": (lambda: partitioned(a, by=days, at_least=0), "must be at least 1"),
    "a window that does not nest": (lambda: roll_up(to="hour", of="day"), "do not roll up"),
    "no window": (lambda: roll_up(to="decade", of="year"), "do not roll up"),
    "a window that is no text": (lambda: roll_up(to="day", of=["hour"]), "'hour', 'day'"),
    "a window on Mars": (lambda: roll_up(to="day", of="hour", tz="Mars"), "unknown time zone"),
    "weeks into hours": (lambda: fan_out(of="hour", to="day"), "does not consist of"),
    "half a fan": (lambda: fan_out(of="day"), "or table="),
    "two fans": (lambda: fan_out(of="day", table={"a": "b"}), "not both"),
    "an empty table": (lambda: fan_out(table={}), "must be a dict"),
    "a table of numbers": (lambda: fan_out(table={"a": [1]}), "a non-empty string"),
    "no fixed key": (lambda: fixed(""), "a non-empty string"),
    "a product of one": (lambda: product(identity), "at least two"),
    "a product of products": (lambda: product(product(days, identity), identity), "in one product"),
    "no separator": (
        lambda: product(days, identity, separator=""),
        "separator takes a non-empty string",
    ),
    "no pattern": (lambda: Dataset.match("s3://lake/orders"), "holds no `*`"),
    "a pattern of no URI": (lambda: Dataset.match("*"), "needs a scheme"),
    "a pattern as an inlet": (
        lambda: EmptyOperator(task_id="a", inlets=[lake]),
        "give the dataset",
    ),
    "a demand as an outlet": (
        lambda: EmptyOperator(task_id="a", outlets=[a.at_least(2)]),
        "give the dataset without constraints",
    ),
}
IN_A_DAG: dict[str, tuple[Any, str]] = {
    "two zones": (
        lambda: DAG(
            "d",
            schedule=Cron("0 1 * * *", tz="Europe/Warsaw") | hourly,
            start=datetime(2026, 1, 1),  # noqa: DTZ001 - the mistake
        ),
        "start needs a zone of its own",
    ),
    "params of no events": (
        lambda: DAG("d", schedule=hourly, params={"n": 1}, params_from={"n": "size(events)"}),
        "the schedule holds no dataset",
    ),
    "params without a schedule": (
        lambda: DAG("d", params={"n": 1}, params_from={"n": "size(events)"}),
        "the schedule holds no dataset",
    ),
    "unknown param": (
        lambda: DAG("d", schedule=a, params={"rows": 1}, params_from={"row": "size(events)"}),
        "did you mean 'rows'?",
    ),
    "params from no CEL": (
        lambda: DAG("d", schedule=a, params={"n": 1}, params_from={"n": "size("}),
        "params_from: n: 'size(' is not a CEL expression",
    ),
    "params from a stranger": (
        lambda: DAG("d", schedule=a, params={"n": 1}, params_from={"n": "evnts[0].partition"}),
        "uses 'evnts'",
    ),
    "params from a list": (lambda: DAG("d", schedule=a, params_from=["n"]), "must be a dict"),
    "a tick that computes no params": (
        lambda: DAG(
            "d",
            schedule=hourly | a,
            params=msgspec.defstruct("Params", [("n", int)]),
            params_from={"n": "size(events)"},
        ),
        "'n' has no default",
    ),
    "from somewhere": (lambda: DAG("d", schedule=a, subscribe_from="yesterday"), "'earliest'"),
    "from a number": (lambda: DAG("d", schedule=a, subscribe_from=5), "'earliest'"),
    "from the start of nothing": (
        lambda: DAG("d", schedule=hourly, subscribe_from=datetime(2026, 1, 1, tzinfo=UTC)),
        "the schedule holds no dataset",
    ),
}


@pytest.mark.parametrize("name", [*MISTAKES, *IN_A_DAG])
def test_a_mistake_names_its_place_and_remedy(name: str) -> None:
    mistake, remedy = (MISTAKES | IN_A_DAG)[name]
    lines, first = inspect.getsourcelines(mistake)
    with pytest.raises(DefinitionError) as caught:
        mistake()
    error = caught.value
    assert remedy in error.message
    assert error.file == __file__
    assert error.line is not None
    assert first <= error.line < first + len(lines)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", IN_A_DAG)
def test_a_mistake_in_a_dag_names_the_dag(name: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        IN_A_DAG[name][0]()
    assert caught.value.dag_id == "d"
