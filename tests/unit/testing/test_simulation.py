"""A simulation tells which runs a schedule would start, as the manager would decide it."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import (
    DAG,
    Context,
    Cron,
    Dataset,
    Every,
    batch,
    debounce,
    fan_out,
    latest,
    partitioned,
    product,
    roll_up,
    task,
)
from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.testing import SimulatedRun, VirtualClock, event, simulate

a, b, c, d = (Dataset(f"s3://lake/{name}") for name in "abcd")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def runs(schedule: Any, items: Any, **more: Any) -> list[SimulatedRun]:
    options = {
        name: more.pop(name) for name in list(more) if name not in ("until", "lasts", "clock")
    }
    return simulate(DAG("x", schedule=schedule, **options), items, **more)


def names(found: list[SimulatedRun]) -> list[str]:
    """Write what each run consumed: `a1 b2`, with the number that an event was given."""
    return [
        " ".join(
            f"{each.dataset.uri.rpartition('/')[2]}{each.extra.get('n', '')}" for each in run.events
        )
        for run in found
    ]


def numbered(letters: str) -> list[Any]:
    return [
        (Dataset(f"s3://lake/{letter}"), {"n": number})
        for number, letter in enumerate(letters.split(), 1)
    ]


@pytest.mark.parametrize(
    ("schedule", "arrive", "expected"),
    [
        (a & b, "a b", ["a1 b2"]),
        (a & b, "a a b a b", ["a1 a2 b3", "a4 b5"]),
        (a | b, "a b", ["a1", "b2"]),
        ((a & b) | c, "a c b", ["c2", "a1 b3"]),
        ((a | b) & (c | d), "a b c", ["a1 b2 c3"]),
        ((a & b) | (a & c), "a b c", ["a1 b2", "a1 c3"]),
        (a.at_least(3), "a a a a a a a", ["a1 a2 a3", "a4 a5 a6"]),
        (a.where("event.extra.n > 2"), "a a a", ["a3"]),
        (a & a, "a", ["a1"]),
        (Dataset.match("s3://lake/*"), "a b", ["a1", "b2"]),
        (latest(a), "a a a", ["a1", "a2", "a3"]),
        (batch(a, max_events=2), "a a a", ["a1 a2", "a3"]),
    ],
    ids=repr,
)
def test_events_become_runs(schedule: Any, arrive: str, expected: list[str]) -> None:
    assert names(runs(schedule, numbered(arrive))) == expected


def test_a_run_says_why_and_with_what() -> None:
    params = {"day": None, "rows": []}
    texts = {"day": "event.partition", "rows": "events.map(e, e.extra.n)"}
    (run,) = runs(
        a.at_least(2),
        [(a, {"n": 1}), (a, {"n": 2}, "2026-11-20", NOON)],
        params=params,
        params_from=texts,
    )
    assert (run.at, run.kind, run.cause) == (NOON, "dataset", "s3://lake/a was updated")
    assert (run.partition, run.logical_time, run.refused) == (None, None, None)
    assert run.params == {"day": "2026-11-20", "rows": [1, 2]}
    assert [each.time for each in run.events] == [NOON, NOON]


def test_params_that_cannot_be_computed_refuse_the_run() -> None:
    (run,) = runs(a, [a], params={"n": 0}, params_from={"n": "event.extra.missing"})
    assert "param 'n'" in (run.refused or "")


def test_events_that_are_too_old_do_not_count() -> None:
    schedule = a.within(12 * HOUR) & b
    assert names(runs(schedule, [(a, {"n": 1}), 13 * HOUR, (b, {"n": 2})])) == []
    items = [(a, {"n": 1}), 13 * HOUR, (a, {"n": 2}), (b, {"n": 3})]
    assert names(runs(schedule, items)) == ["a2 b3"]


def test_deadlines_pass_when_nothing_else_is_left() -> None:
    (run,) = runs((a & b).or_after(2 * HOUR), [event(a, time=NOON)])
    assert (run.at, names([run])) == (NOON + 2 * HOUR, ["a"])
    assert runs((a & b).or_after(2 * HOUR, then="skip"), [a]) == []
    skipped = runs((a & b).or_after(2 * HOUR, then="skip"), [a, 3 * HOUR, b, a])
    assert names(skipped) == ["b a"]
    assert runs((a & b).or_after(2 * HOUR), [a], until=HOUR) == []


def test_time_brings_ticks() -> None:
    cron = Cron("0 * * * *")
    found = runs(cron | a, [NOON, a, 2 * HOUR])
    assert [(run.kind, run.at, run.logical_time) for run in found] == [
        ("dataset", NOON, None),
        ("cron", NOON + HOUR, NOON + HOUR),
        ("cron", NOON + 2 * HOUR, NOON + 2 * HOUR),
    ]
    held = runs(cron & a, [NOON, 3 * HOUR, (a, {"n": 1}), (a, {"n": 2})], until=2 * HOUR)
    assert names(held) == ["a1 a2"]
    assert held[0].at == NOON + 4 * HOUR
    both = runs(Every(HOUR) & a | Cron("30 * * * *") & b, [NOON, a, b], until=HOUR)
    assert [run.at.minute for run in both] == [30, 0]


@pytest.mark.parametrize(
    ("schedule", "same"),
    [
        ("0 16 * * *", Cron("0 16 * * *")),
        ("@hourly", Cron("0 * * * *")),
        ("@daily", Cron("0 0 * * *")),
        ("@weekly", Cron("0 0 * * 0")),
        ("@monthly", Cron("0 0 1 * *")),
        ("@Yearly", Cron("0 0 1 1 *")),
        (timedelta(hours=6), Every(timedelta(hours=6))),
        (["@hourly", a], Cron("0 * * * *") & a),
        ("@continuous", latest(Every(1))),
    ],
)
def test_a_schedule_may_be_a_string_or_a_timedelta(schedule: Any, same: Any) -> None:
    assert DAG("d", schedule=schedule).schedule == DAG("d", schedule=same).schedule


def test_once_is_one_run() -> None:
    (run,) = runs("@once", [NOON], until=NOON + timedelta(days=400))
    assert run.at - NOON < timedelta(seconds=1)
    later = NOON + timedelta(days=3)
    (run,) = runs("@once", [NOON], until=NOON + timedelta(days=9), start=later)
    assert (run.at, run.logical_time) == (later, later)
    assert runs("@once", [NOON], until=NOON + timedelta(days=9), end=NOON) == []


def test_continuous_runs_follow_one_upon_the_other() -> None:
    found = runs("@continuous", [NOON], until=timedelta(seconds=10), lasts=timedelta(seconds=3))
    assert [(run.at - NOON).seconds for run in found] == [1, 4, 7, 10]


def test_missed_ticks_are_made_up_for_with_catchup() -> None:
    options: dict[str, Any] = {"start": NOON - 3 * HOUR}
    found = runs(Cron("0 * * * *"), [NOON], catchup=True, **options)
    assert [run.logical_time for run in found] == [NOON - n * HOUR for n in (3, 2, 1, 0)]
    assert runs(Cron("0 * * * *"), [NOON], **options) == []


def test_a_batch_starts_when_it_is_full_or_has_lingered() -> None:
    schedule = batch(a, max_events=3, linger=timedelta(seconds=10))
    first = [event(a, time=NOON)]
    (alone,) = runs(schedule, first)
    assert alone.at == NOON + timedelta(seconds=10)
    found = runs(schedule, [*first, *numbered("a a a")])
    assert [len(run.events) for run in found] == [3, 1]
    assert found[0].at == NOON


def test_a_debounced_run_waits_for_quiet() -> None:
    second = timedelta(seconds=1)
    busy = [NOON] + [a, second] * 8
    (run,) = runs(debounce(a, quiet=2 * second), busy)
    assert (run.at, len(run.events)) == (NOON + 9 * second, 8)
    found = runs(debounce(a, quiet=2 * second, max_wait=4 * second), busy)
    assert found[0].at == NOON + 4 * second
    assert sum(len(run.events) for run in found) == 8


def test_while_a_run_is_active_later_events_collapse_into_one() -> None:
    minute = timedelta(minutes=1)
    items = [NOON]
    for number in range(1, 5):
        items += [(a, {"n": number}), minute]
    found = runs(latest(a), items, lasts=10 * minute)
    assert names(found) == ["a1", "a2 a3 a4"]
    assert [run.at for run in found] == [NOON, NOON + 10 * minute]


def test_partitions_are_decided_about_one_by_one() -> None:
    found = runs(partitioned(a & b), [(a, {}, "x"), (b, {}, "y"), (a, {}, "y"), (b, {}, "x")])
    assert [(run.partition, names([run])) for run in found] == [("y", ["b a"]), ("x", ["a b"])]
    twice = [(a, {}, "x"), (a, {}, "x"), a]
    assert len(runs(partitioned(a), twice)) == 2
    assert len(runs(partitioned(a, again="never"), twice)) == 1


def test_hours_roll_up_to_days() -> None:
    hours = [(a, {}, f"2026-11-20T{hour:02}") for hour in range(24)]
    days = partitioned(a, by=roll_up(to="day", of="hour"))
    (run,) = runs(days, hours)
    assert (run.partition, len(run.events)) == ("2026-11-20", 24)
    assert runs(days, hours[:-1]) == []
    most = partitioned(a, by=roll_up(to="day", of="hour"), at_least=20)
    assert len(runs(most, hours[:20])) == 1


def test_a_day_fans_out_to_hours_and_keys_have_dimensions() -> None:
    found = runs(partitioned(a, by=fan_out(of="day", to="hour")), [(a, {}, "2026-11-20")])
    assert len(found) == 24
    by = product(roll_up(to="month", of="day"), fan_out(table={"eu": ["de", "pl"]}))
    days = [(a, {}, f"2026-02-{day:02}|eu") for day in range(1, 29)]
    assert [run.partition for run in runs(partitioned(a, by=by), days)] == [
        "2026-02|de",
        "2026-02|pl",
    ]


def test_what_a_run_emits_can_be_given_to_the_next() -> None:
    @task(outlets=[b])
    def make(ctx: Context) -> None:
        ctx.emit(b, extra={"n": 7})

    with DAG("first", schedule=a) as first:
        make()
    emitted = first.test(events=[a], now=NOON).emitted
    (run,) = runs(b, emitted)
    assert (run.events, run.at) == (tuple(emitted), NOON)


def test_the_clock_is_the_callers() -> None:
    clock = VirtualClock(NOON)
    assert [run.at for run in runs(a, [a, HOUR, a], clock=clock)] == [NOON, NOON + HOUR]
    assert clock.now() == NOON + HOUR


@pytest.mark.parametrize(
    ("schedule", "items", "error", "remedy"),
    [
        (None, [a], InvalidInput, "runs only on request"),
        (a, [b], InvalidInput, "does not wait for 's3://lake/b'"),
        (a, [5], InvalidInput, "is not an event"),
        (a, [()], InvalidInput, "is not an event"),
        (a, [NOON.replace(tzinfo=None)], InvalidInput, "needs a zone"),
        (a, [(a, {}, None, NOON.replace(tzinfo=None))], InvalidInput, "needs a zone"),
        (a, [(a, [])], DefinitionError, "must be a dict"),
        (Every(0.1), [timedelta(days=30)], InvalidInput, "simulate a shorter time"),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    schedule: Any,
    items: Any,
    error: type[Exception],
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pubsubflow.testing.simulation.MAX_STEPS", 1000)
    with pytest.raises(error, match=remedy):
        runs(schedule, items)


@given(st.lists(st.sampled_from("ab"), max_size=30), st.integers(1, 5))
def test_batches_lose_and_double_nothing(letters: list[str], most: int) -> None:
    items = numbered(" ".join(letters))
    found = runs(batch(a | b, max_events=most), items)
    consumed = [each.extra["n"] for run in found for each in run.events]
    assert consumed == list(range(1, len(items) + 1))


def test_simulations_are_imported_when_they_are_asked_for() -> None:
    code = "import sys, pubsubflow.testing.inprocess; print('pubsubflow.manager' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
