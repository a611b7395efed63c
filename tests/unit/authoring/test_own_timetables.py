from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pubsubflow import DAG, Cron, Dataset, DefinitionError, Timetable, latest, task
from pubsubflow.authoring.schedules.own_timetables import (
    TimetableFailed,
    computed_ticks,
    latest_own_tick,
)
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.snapshot import Bundle, Snapshot
from pubsubflow.loader.state import LoaderState
from pubsubflow.model.schedule.conditions import ScheduleSpec, describe_schedule, ticks
from pubsubflow.model.schedule.timetable import TableSpec, first_tick, latest_tick, next_tick
from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.model.spec import LoadedFile
from pubsubflow.testing import simulate

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
orders = Dataset("s3://lake/orders")


class Workdays(Timetable):
    """Nine o'clock, Monday to Friday."""

    def __init__(self, *holidays):
        self.holidays = holidays

    def __repr__(self):
        return f"Workdays{self.holidays!r}"

    def next_after(self, moment):
        tick = moment.replace(hour=9, minute=0, second=0, microsecond=0)
        while tick <= moment or tick.weekday() > 4 or f"{tick:%m-%d}" in self.holidays:
            tick += timedelta(days=1)
        return tick


class Given(Timetable):
    def __init__(self, answer):
        self.answer = answer

    def __repr__(self):
        return "Given()"

    def next_after(self, moment):
        return self.answer(moment)


def moments(table):
    return [datetime.fromtimestamp(each, UTC) for each in table.ticks]


def test_ticks_are_those_of_this_year_and_the_next():
    table = computed_ticks(Workdays("12-25"), NOW, start=None, catchup=False)
    found = moments(table)
    assert found[0] == datetime(2026, 1, 1, 9, tzinfo=UTC)
    assert found[-1] == datetime(2027, 12, 31, 9, tzinfo=UTC)
    assert datetime(2026, 12, 25, 9, tzinfo=UTC) not in found
    assert table.renew_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("minutes", "first", "renewed"),
    [
        (600, (2026, 1, 1), (2027, 1, 1)),
        (60, (2026, 11, 1), (2026, 12, 1)),
        (1, (2026, 11, 29), (2026, 11, 30)),
    ],
)
def test_dense_ticks_are_computed_for_a_shorter_time(minutes, first, renewed):
    step = timedelta(minutes=minutes)

    def following(moment):
        return (
            datetime(1970, 1, 1, tzinfo=UTC)
            + ((moment - datetime(1970, 1, 1, tzinfo=UTC)) // step + 1) * step
        )

    table = computed_ticks(Given(following), NOW, start=None, catchup=False)
    assert moments(table)[0] - datetime(*first, tzinfo=UTC) < step
    assert table.renew_at == datetime(*renewed, tzinfo=UTC).timestamp()
    # Another import in the same period gives the same version.
    later = datetime.fromtimestamp(table.renew_at - 1, UTC)
    assert computed_ticks(Given(following), later, start=None, catchup=False) == table
    # Before the last tick of one table the next one is due.
    assert moments(table)[-1] - datetime.fromtimestamp(table.renew_at, UTC) > timedelta(hours=23)


def test_a_timetable_that_ends_is_not_computed_again():
    once = Given(lambda m: NOW if m < NOW else None)
    table = computed_ticks(once, NOW, start=None, catchup=False)
    assert (moments(table), table.renew_at) == ([NOW], None)


def test_catch_up_begins_at_the_start():
    start = datetime(2024, 5, 1, tzinfo=UTC)
    table = computed_ticks(Workdays(), NOW, start=start, catchup=True)
    assert moments(table)[0] == datetime(2024, 5, 1, 9, tzinfo=UTC)
    assert moments(table) == sorted(set(moments(table)))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda _: datetime(2020, 1, 1, tzinfo=UTC), "which is not later"),
        (lambda m: m.replace(tzinfo=None), "a datetime with a zone"),
        (lambda m: (m + timedelta(days=1)).replace(microsecond=5), "of whole seconds"),
        (lambda _: "tomorrow", "a datetime with a zone"),
        (lambda m: m.replace(microsecond=0) + timedelta(seconds=1), "more than 5000 ticks in two"),
    ],
)
def test_what_is_not_rising_moments_is_an_error_of_the_dag(answer, text):
    dag = DAG("d", schedule=Given(answer))
    with pytest.raises(DefinitionError, match=text) as caught:
        dag.with_ticks(dag.to_spec("d.py", ""), NOW)
    assert "DAG 'd'" in str(caught.value)


def test_one_that_raises_is_named():
    dag = DAG("d", schedule=Given(lambda _: 1 / 0))
    with pytest.raises(TimetableFailed, match=r"Given\(\): next_after\(.*ZeroDivisionError"):
        dag.with_ticks(dag.to_spec("d.py", ""), NOW)


def test_one_without_a_name_is_refused():
    class Nameless(Timetable):
        pass

    with pytest.raises(DefinitionError, match="Nameless: write __repr__"):
        DAG("d", schedule=Nameless())


def test_it_stands_in_conditions_and_is_read_back():
    dag = DAG("d", schedule=latest((Workdays() & orders) | Cron("0 12 * * *")))
    spec = dag.with_ticks(dag.to_spec("d.py", ""), NOW)
    assert describe_schedule(spec.schedule) == (
        "latest((Workdays() & s3://lake/orders) | Cron('0 12 * * *', tz='UTC'))"
    )
    again = msgspec.json.decode(msgspec.json.encode(spec.schedule), type=ScheduleSpec)
    assert again == spec.schedule
    own, cron = ticks(again.condition)
    assert len(own.timetable.ticks) == 522
    assert cron == list(ticks(dag.schedule.condition))[1]


def test_further_ticks_are_the_same_timetable():
    before, after, other = (
        next(ticks(DAG(f"d{n}", schedule=table).schedule_at(now).condition))
        for n, (table, now) in enumerate(
            [
                (Workdays(), NOW),
                (Workdays(), NOW + timedelta(days=60)),
                (Workdays("12-24"), NOW),
            ]
        )
    )
    assert after != before
    assert after.continues(before)
    assert not other.continues(before)


def test_table_answers_as_the_timetable_does():
    table = TableSpec("t", (10, 20, 30))
    at = [datetime.fromtimestamp(each, UTC) for each in (0, 10, 10.5, 20, 29.999999, 30)]
    found = [table.after(each) for each in at]
    assert [None if each is None else each.timestamp() for each in found] == [
        10,
        20,
        20,
        30,
        30,
        None,
    ]
    assert next_tick(table, at[0], at[3], None) == at[3]
    assert next_tick(table, at[1], None, at[2]) is None
    assert latest_tick(table, at[0], at[4], None, None) == at[3]
    assert first_tick(table, at[0], None, None) == at[1]


def test_simulation_runs_at_its_ticks():
    dag = DAG("d", schedule=Workdays())
    with dag:
        task(task_id="t")(lambda: None)()
    runs = simulate(dag, [datetime(2026, 1, 1, 12, tzinfo=UTC), timedelta(days=5)])
    assert [run.logical_time.day for run in runs] == [2, 5, 6]


def test_the_interval_of_a_run_begins_at_the_tick_before():
    assert latest_own_tick(Workdays(), NOW, timedelta(days=3700)) == datetime(
        2026, 11, 27, 9, tzinfo=UTC
    )
    once = Given(lambda m: datetime(2019, 1, 1, tzinfo=UTC) if m.year < 2019 else None)
    assert latest_own_tick(once, NOW, timedelta(days=3700)).year == 2019
    never = Given(lambda _: None)
    assert latest_own_tick(never, NOW, timedelta(days=3700)) is None


def test_a_file_is_imported_again_when_its_ticks_are_to_be_computed():
    dag = DAG("d", schedule=Workdays())
    spec = dag.with_ticks(dag.to_spec("d.py", ""), NOW)
    now = [NOW.timestamp()]
    state = LoaderState(wall_clock=lambda: now[0])
    bundle = Bundle("h", Manifest("/dags", "", {"d.py": BundleFile("x", 1)}))
    snapshot = Snapshot({"": bundle}, {"d.py": ""})
    state.update(snapshot)
    state.add(ImportResult(LoadedFile("d.py", bundle="h", dags=(spec,))), snapshot, 0.0)
    assert not state.is_stale("d.py", 0.0)
    now[0] = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert state.is_stale("d.py", 0.0)
