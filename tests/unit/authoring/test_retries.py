"""Which failures are tried again, when, and what a task says about it by an exception."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import (
    DAG,
    DefinitionError,
    EmptyOperator,
    Fail,
    Retry,
    RetryAfter,
    Skip,
    TaskFailed,
    TaskSkipped,
    task,
)
from pubsubflow.authoring.tasks.retries import judged
from pubsubflow.model.runs.retry import retries_time_limit
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.messages import TaskError


class BusyError(OSError):
    pass


def run_of(error, *, before_success=99, **options):
    """Run a task that raises so many times, and return its result and seconds."""
    raised = []
    with DAG("d") as made:

        @task(**options)
        def work():
            if len(raised) < before_success:
                raised.append(error)
                raise error
            return len(raised)

        work()
    result = made.test(raise_on_error=False)
    (found,) = result.tasks["work"]
    return found, (result.ended_at - result.started_at).total_seconds()


def test_a_retry_is_a_policy():
    retry = Retry(3, delay=timedelta(minutes=1), backoff=2, jitter=0.5, max_delay=600,
                  on=(BusyError, TimeoutError), never=ValueError)  # fmt: skip
    with DAG("d", default_args={"retries": 1, "retry_delay": 5}) as made:
        EmptyOperator(task_id="a", retries=retry)
        EmptyOperator(task_id="b")
    a, b = (each.retry for each in made.to_spec("", "").tasks)
    assert a == RetryPolicy(3, 60, 2, 600, 0.5, (f"{__name__}.BusyError", "builtins.TimeoutError"),
                            ("builtins.ValueError",))  # fmt: skip
    assert b == RetryPolicy(1, 5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Retry(-1), "Retry: retries=-1 must be at least 0"),
        (lambda: Retry(1, backoff=0.5), "Retry: backoff=0.5 must be from 1"),
        (lambda: Retry(1, on=("TimeoutError",)), "must be exception classes"),
        (lambda: Retry(1, never=[ValueError()]), "must be exception classes"),
        (lambda: task(retries=Retry(1), retry_delay=3)(print), "retry_delay= stands beside"),
        (lambda: DAG("d", default_args={"retries": Retry(1), "retry_backoff": 3}), "beside"),
    ],
)
def test_a_retry_that_cannot_be_is_a_mistake(make, says):
    with pytest.raises(DefinitionError, match=re.escape(says)):
        make()


@pytest.mark.parametrize(
    ("error", "attempts", "says"),
    [
        (BusyError("x"), 3, ""),
        (TimeoutError("x"), 3, ""),
        (KeyError("x"), 1, "(not retried: KeyError is not in on=)"),
        (ConnectionResetError("x"), 1, "(not retried: ConnectionResetError is in never=)"),
        (ExceptionGroup("x", [BusyError("y"), KeyError("z")]), 1, "KeyError is not in on="),
        (ExceptionGroup("x", [BusyError("y"), TimeoutError("z")]), 3, ""),
        (Fail("nothing there"), 1, "nothing there"),
    ],
)
def test_some_exceptions_are_tried_again(error, attempts, says):
    retry = Retry(2, on=(OSError, TimeoutError), never=ConnectionError)
    found, _ = run_of(error, retries=retry)
    assert (found.state, found.attempts) == ("failed", attempts)
    assert says in found.error.message


def test_without_exceptions_all_are_tried_again():
    assert run_of(KeyError("x"), retries=Retry(2))[0].attempts == 3
    assert run_of(KeyError("x"), retries=2)[0].attempts == 3


def test_a_skip_says_why():
    found, _ = run_of(Skip("nothing new"), retries=2)
    assert (found.state, found.attempts, found.error.message) == ("skipped", 1, "nothing new")
    assert issubclass(Skip, TaskSkipped)
    assert issubclass(Fail, TaskFailed)


def test_a_task_chooses_when_it_is_tried_again():
    error = RetryAfter(timedelta(hours=2), "the quota is used up")
    found, seconds = run_of(error, before_success=2, retries=Retry(3, delay=1, on=KeyError))
    assert (found.state, found.attempts, found.value) == ("success", 3, 2)
    assert 4 * 3600 <= seconds < 4 * 3600 + 60
    found, _ = run_of(error, retries=1)
    assert (found.state, found.attempts) == ("failed", 2)
    assert found.error.message == "the quota is used up"
    assert run_of(RetryAfter(0), retries=0)[0].error.message == "to be tried again after 0 s"
    with pytest.raises(ValueError, match="not negative"):
        RetryAfter(-1)


KINDS = [ValueError, OSError, TimeoutError, KeyError, LookupError, BusyError]
_kinds = st.lists(st.sampled_from(KINDS), max_size=3).map(tuple)


@given(_kinds, _kinds, st.sampled_from(KINDS))
def test_classes_and_names_say_the_same(on, never, kind):
    """The runner decides by classes, the manager by names, of a time limit alone."""
    retry = Retry(1, on=on, never=never)
    judgement = judged(retry, kind("x"), TaskError(kind.__name__, "x"))
    expected = issubclass(kind, never) or bool(on and not issubclass(kind, on))
    assert judgement.final is expected
    limit = judged(retry, TimeoutError("x"), TaskError("TimeoutError", "x"))
    assert retries_time_limit(retry.policy()) is not limit.final
