"""The errors of user code are described whatever the exception is."""

import pytest

from pubsubflow.authoring.runtime.wait_specs import TaskDeferred
from pubsubflow.model.wire.messages import (
    Outcome,
    ResultMessage,
    TaskMessage,
    decode_result,
    encode,
)
from pubsubflow.model.wire.waits import Wait, WaitSet
from pubsubflow.runner.execution import TaskExecution
from pubsubflow.runner.failures import outcome_of
from pubsubflow.runner.log_lines import log_record
from pubsubflow.runner.protocol import RESULT_HEADER, RunnerSettings
from pubsubflow.runner.redaction import Redactor


class WithoutTextError(Exception):
    def __str__(self):
        return None  # noqa: PLE0307 - that is what is odd


class ExitInTextError(Exception):
    def __str__(self):
        raise SystemExit(3)


class OddNotesError(Exception):
    @property
    def __notes__(self):
        raise KeyError("notes")


class OddCauseError(Exception):
    def __getattribute__(self, name):
        if name in ("__cause__", "__context__", "__suppress_context__"):
            raise RecursionError(name)
        return super().__getattribute__(name)


def with_note():
    error = ValueError("row")
    error.add_note("of \udcff")
    return error


ODD = {
    "a lone surrogate": (ValueError("row \udcff"), "ValueError", "row \\udcff"),
    "a group": (
        ExceptionGroup("many \udcff", [ValueError("\udcfe")]),
        "ExceptionGroup",
        "many \\udcff (1 sub-exception)",
    ),
    "a text that is none": (
        WithoutTextError(),
        "WithoutTextError",
        "<its text cannot be made: TypeError>",
    ),
    "a text that exits": (
        ExitInTextError(),
        "ExitInTextError",
        "<its text cannot be made: SystemExit>",
    ),
    "a note": (with_note(), "ValueError", "row"),
    "notes that raise": (OddNotesError("x"), "OddNotesError", "x"),
    "a cause that raises": (OddCauseError("x"), "OddCauseError", "x"),
    "no text": (KeyboardInterrupt(), "KeyboardInterrupt", "KeyboardInterrupt"),
}


@pytest.mark.parametrize("name", ODD)
def test_every_exception_has_an_error_that_can_be_encoded(name):
    raised, kind, message = ODD[name]
    outcome, found = outcome_of(raised)
    assert (outcome, found.type, found.message) == (Outcome.FAILED, kind, message)
    result = ResultMessage(1, 0, -1, 1, 1, "w", outcome, 0.0, 0.0, error=found)
    assert decode_result(encode(result)).error == found


def test_a_log_call_never_fails_for_its_values():
    endless = {}
    endless["itself"] = endless
    for value in (WithoutTextError(), endless, object(), {1: "\udcff"}, float("nan")):
        assert log_record("info", "it \udcff", {"value": value, "\udcff": 1})


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x" * 200_000, "DefinitionError", "200,0"),
        ("\udcff", "UnicodeEncodeError", "surrogates not allowed"),
    ],
)
def test_a_wait_that_no_message_can_carry_fails_its_task(text, kind, message):
    order = TaskMessage(1, 0, -1, 1, 1, "async", "d", "t", "source", b"")
    execution = TaskExecution(1, order, RunnerSettings("async", "w", 100_000, 1.0), Redactor())
    frame = execution.fail(TaskDeferred(WaitSet("0", "it", (Wait("event", text),), 1, None)))
    result = decode_result(frame[RESULT_HEADER.size :])
    assert (result.outcome, result.error.type) == (Outcome.FAILED, kind)
    assert message in result.error.message
