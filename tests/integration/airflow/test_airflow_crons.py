"""Crons of Airflow's DAGs tick as croniter has them: by ours where it agrees, else by Airflow."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pubsubflow.model.schedule.timetable import CronSpec
from support.airflow import airflow_python, run_inside

START = datetime(2027, 2, 20, tzinfo=UTC)
RANGES = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 7))
NAMES = {3: ("jan", "MAR", "Dec"), 4: ("MON", "thu", "SUN")}
USUAL = (
    "0 6 * * *",
    "*/15 * * * *",
    "0 9-17/2 * * MON-FRI",
    "0 0 1,15 * *",
    "0 0 1 * 1",
    "0 0 * * 7",
)
CRONITERS_OWN = (
    "0 0 * * * 30",  # seconds
    "0 0 1 1 * 0 2028",  # a year
    "0 0 * * L5",
    "0 0 * * MON#1",
    "0 0 * * FRI-MON",
    "0 0 5-5 * *",
    "0 0 * * 7/2",
    "*/7,30 * * * *",
    "0 0 */2 * MON",
    "0 0 ? * *",
)


def some_expressions(number):
    """Return expressions of all forms that are read alike, mixed by chance."""
    chance = random.Random(number)

    def one(field):
        names = NAMES.get(field, ())
        return chance.choice([str(chance.randint(*RANGES[field])), *names[:1]])

    def part(field):
        low, high = sorted(chance.sample(range(RANGES[field][0], RANGES[field][1] + 1), 2))
        step = chance.randint(1, 9)
        return chance.choice([one(field), f"{low}-{high}", f"{low}-{high}/{step}"])

    def written(field):
        lists = ",".join(part(field) for _ in range(chance.randint(1, 3)))
        return chance.choice(["*", f"*/{chance.randint(1, 9)}", lists])

    return [" ".join(map(written, range(len(RANGES)))) for _ in range(number)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    airflow_python()
    folder = tmp_path_factory.mktemp("crons")
    listed = [*USUAL, *CRONITERS_OWN, *some_expressions(150)]
    (folder / "listed.json").write_text(json.dumps(listed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        printed = run_inside("crons_inside:main", str(folder / "listed.json"), home=folder)
    return dict(zip(listed, json.loads(printed.splitlines()[-1]), strict=True))


def our_ticks(expression, number):
    spec, moment, ticks = CronSpec(expression), START, []
    while len(ticks) < number:
        moment = spec.after(moment)
        ticks.append(moment.timestamp())
    return ticks


def test_plain_ones_tick_alike(found):
    plain = {expression: ticks for expression, (is_plain, ticks) in found.items() if is_plain}
    assert plain.keys() >= set(USUAL)
    assert len(plain) > 60
    for expression, ticks in plain.items():
        assert our_ticks(expression, len(ticks)) == ticks, expression


def test_those_that_croniter_alone_reads_are_computed_by_airflow(found):
    assert [each for each in CRONITERS_OWN if found[each][0]] == []
    assert [each for each in CRONITERS_OWN if not found[each][1]] == []
