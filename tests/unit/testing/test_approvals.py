"""Approvals in DAG.test, with answers as an argument; what ctx.approve refuses."""

import msgspec
import pytest

from pubsubflow import ApprovalAnswer, Context, Escalate, Param, dag, task


class Rollout(msgspec.Struct):
    percent: int = 100


def asking(**arguments):
    @dag(dag_id="asking")
    def made():
        @task
        async def ask(ctx: Context):
            answer = await ctx.approve("Go?", **arguments)
            values = answer.values
            return [answer.option, values.percent if isinstance(values, Rollout) else values]

        ask()

    return made


@pytest.mark.parametrize(
    ("arguments", "given", "found"),
    [
        ({}, "reject", ["reject", {}]),
        ({"form": Rollout}, "approve", ["approve", 100]),
        ({"form": Rollout}, {"option": "approve", "values": {"percent": 3}}, ["approve", 3]),
        ({"form": {"x": Param(1, minimum=0)}}, "approve", ["approve", {"x": 1}]),
        ({"quorum": 3}, "approve", ["approve", {}]),
        ({"escalate": Escalate(60, by=("role:admin",))}, "approve", ["approve", {}]),
    ],
)
def test_an_answer_is_given_by_its_question(arguments, given, found):
    assert asking(**arguments).test(answers={"Go?": given}).result("ask") == found


def test_without_an_answer_the_time_is_over():
    assert asking(timeout=60, default="reject").test().result("ask") == ["reject", None]
    told = []
    escalated = asking(
        timeout=60, escalate=Escalate(30, by=("role:admin",)), notify=lambda it: told.append(it.by)
    ).test()
    assert escalated.tasks["ask"][0].error.type == "WaitTimeout"
    assert told == [("role:operator",), ("role:operator", "role:admin")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"by": ("ann",)}, "by='ann' must be"),
        ({"by": ()}, "lists no one"),
        ({"by": ("user:ann",), "quorum": 2}, "needs more people"),
        ({"quorum": 0}, "quorum=0"),
        ({"options": "yes"}, "options="),
        ({"default": "maybe"}, "default='maybe'"),
        ({"timeout": 1, "escalate": Escalate(2, by=("role:admin",))}, "before the escalation"),
        ({"form": {"x": 1}}, "form="),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, says):
    error = asking(**arguments).test().tasks["ask"][0].error
    assert (error.type, says in error.message) == ("DefinitionError", True), error


def test_an_answer_has_to_fit():
    error = asking().test(answers={"Go?": "shrug"}).tasks["ask"][0].error
    assert "'shrug' is not an option" in error.message


def test_an_answer_is_a_value():
    assert ApprovalAnswer("approve") == ApprovalAnswer("approve", None, ())
