"""Questions of Airflow's code become ours, and come through the wire as they are."""

from datetime import UTC, datetime

import pytest
from msgspec import Raw

from pubsubflow.airflow.outside.questions import plain, question_of
from pubsubflow.authoring.runtime import results
from pubsubflow.model.schedule.conditions import ScheduleSpec, Tick
from pubsubflow.model.schedule.dates import date_of, tick_of
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec
from pubsubflow.model.wire.messages import encode
from pubsubflow.model.wire.outputs import PulledValues
from pubsubflow.model.wire.task_questions import (
    ChangeState,
    FindEvents,
    FindRuns,
    FindTasks,
    KeptValue,
    LeaveValue,
    RunFact,
    SetVariable,
    TaskFact,
    decode_fact,
)
from pubsubflow.model.wire.worker_requests import TaskQuestionRequest, decode_worker_request
from pubsubflow.testing.questions import TestQuestions

DAY = datetime(2026, 5, 6, tzinfo=UTC)
RUN = RunFact("d", "id", "key", "cron", "success", DAY, DAY, None, DAY, None, None, {"n": 1})


@pytest.mark.parametrize(
    ("kind", "given", "question"),
    [
        ("runs", {"dag_id": "d", "states": ["failed"]}, FindRuns("d", states=("failed",))),
        (
            "tasks",
            {"runs": {"dag_id": "d", "logical_dates": ["2026-05-06T00:00:00Z"]}, "group": "g"},
            FindTasks(FindRuns("d", (DAY,)), None, "g"),
        ),
        (
            "events",
            {"asset": {"name": "a", "uri": "a"}, "limit": 3, "ascending": False},
            FindEvents("airflow://a", limit=3, ascending=False),
        ),
        (
            "events",
            {"asset": {"name": "daily", "kind": "alias"}, "after": DAY},
            FindEvents("airflow-alias://daily", DAY),
        ),
        ("state", {"operation": "get", "key": "k"}, ChangeState("get", key="k")),
        ("leave", {"key": "k", "value": None}, LeaveValue("k", results.NONE)),
        ("take_away", {"key": "k"}, LeaveValue("k", None)),
        ("set_variable", {"name": "v", "value": None}, SetVariable("v", None)),
    ],
)
def test_a_question_of_airflows(kind, given, question):
    found = question_of(kind, given)
    assert found == question
    request = TaskQuestionRequest(1, 2, -1, 1, 1, found)
    assert decode_worker_request(encode(request)) == request


def test_answers_are_plain_inside():
    fact = TaskFact(RUN, "t", 3, None)
    assert decode_fact(FindTasks(FindRuns("d")), encode([fact])) == (fact,)
    found = plain((fact,))
    assert (found[0]["task_id"], found[0]["run"]["params"], found[0]["state"]) == (
        "t",
        {"n": 1},
        None,
    )


@pytest.mark.parametrize("table", [CronSpec("0 0 * * *"), IntervalSpec(86_400.0)])
def test_a_date_is_the_start_of_the_interval_that_a_tick_ends(table):
    schedule = ScheduleSpec(Tick(0, table))
    tick = DAY.replace(day=7)
    assert (tick_of(schedule, DAY), date_of(schedule, tick)) == (tick, DAY)
    assert (tick_of(None, DAY), date_of(None, DAY)) == (DAY, DAY)


def test_a_test_keeps_what_its_tasks_leave():
    variables = {}
    questions = TestQuestions(variables)
    questions.answer(LeaveValue("k", b"\x01"), "first", -1)
    found = questions.with_early(PulledValues(), "first", "k", None)
    assert found.values == ((-1, Raw(b"\x01"), False),)
    assert questions.with_early(PulledValues(), "other", "k", None).values == ()
    assert questions.answer(SetVariable("v", "1"), "first", -1) is False
    assert variables["v"].value == "1"
    questions.answer(ChangeState("set", key="n", value="3"), "first", -1)
    assert questions.answer(ChangeState("get", key="n"), "first", -1) == KeptValue("3")
    assert questions.answer(ChangeState("get", key="n"), "other", -1) is None
    questions.answer(ChangeState("clear"), "first", -1)
    assert questions.answer(ChangeState("get", key="n"), "first", -1) is None
    assert questions.answer(FindRuns("d"), "first", -1) == ()
