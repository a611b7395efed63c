"""Callbacks: how they are written, kept in specs, described and tried again."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from pubsubflow import DAG, DefinitionError, task
from pubsubflow.authoring.alerts.callbacks import callback_name, callbacks
from pubsubflow.authoring.runtime.callback_context import describe
from pubsubflow.model.callbacks import CallbackFacts, FailedTask, next_try

NOW = datetime(2026, 11, 29, tzinfo=UTC)


class Pager:
    def __call__(self, ctx):
        pass


def test_a_callback_is_a_function_a_notifier_or_a_list():
    pager = Pager()
    assert callbacks(None) == ()
    assert callbacks(print) == (print,)
    assert callbacks([print, pager]) == (print, pager)
    assert [callback_name(each) for each in (print, pager, partial(print, 1))] == [
        *("print", "Pager", "print")
    ]


@pytest.mark.parametrize(("value", "words"), [("text", "function"), (Pager, "not its class")])
def test_what_cannot_be_called_is_refused_where_it_is_written(value, words):
    with pytest.raises(TypeError, match=words):
        callbacks(value)
    with pytest.raises(DefinitionError, match="on_retry="), DAG("x"):
        task(on_retry=value)(print)


def test_specs_name_what_is_called_and_change_nothing_without():
    with DAG("x", on_failure=[print, Pager()]) as made:

        @task(on_skipped=Pager(), on_retry=print)
        def one():
            pass

        @task
        def two():
            pass

        one()
        two()
    spec = made.to_spec("", "")
    assert spec.callbacks == {"on_failure": ("print", "Pager")}
    called = {each.task_id: each.callbacks for each in spec.tasks}
    assert called == {"one": {"on_retry": ("print",), "on_skipped": ("Pager",)}, "two": {}}


def test_a_failed_call_is_tried_again_ever_later_and_not_for_ever():
    again = [next_try(n, retries=3, delay_seconds=5, now=NOW) for n in (1, 2, 3, 4)]
    assert again == [*(NOW + timedelta(seconds=each) for each in (5, 15, 45)), None]


def test_what_happened_is_one_line():
    run = CallbackFacts(
        kind="on_failure",
        dag_id="d",
        run_id="r",
        state="failed",
        failed=(FailedTask(0, "a", -1, 1, "x"), FailedTask(1, "b", -1, 1, "x")),
    )
    assert describe(run) == "run r of DAG d failed: failed tasks: a, b"
    retry = CallbackFacts(
        kind="on_retry", dag_id="d", run_id="r", task_id="a", map_index=2, attempt=1, error="no"
    )
    assert describe(retry) == "task a.2 in run r of DAG d is tried again after attempt 1: no"
