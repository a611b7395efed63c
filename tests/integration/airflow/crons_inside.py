"""Runs in the interpreter that has Airflow: what its crons tick, and which of them are plain.

It prints a line of JSON for the expressions that a file has as JSON: whether each is plain, and its
next ticks, as far as there are any.
"""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pendulum
from airflow.timetables.trigger import CronTriggerTimetable
from croniter import CroniterBadDateError

from pubsubflow.airflow.inside.loading.crons import is_plain_cron

START = pendulum.instance(datetime(2027, 2, 20, tzinfo=UTC))
TICKS = 12


def main(file):
    print(json.dumps([_found(each) for each in json.loads(Path(file).read_text())]))


def _found(expression):
    table = CronTriggerTimetable(expression, timezone="UTC")
    moment, ticks = START, []
    with suppress(CroniterBadDateError):
        for _ in range(TICKS):
            moment = table._get_next(moment)
            ticks.append(moment.timestamp())
    return is_plain_cron(expression), ticks
