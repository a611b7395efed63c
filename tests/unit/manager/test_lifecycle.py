"""Lifecycle of runs without servers: reports in, states, orders and events out."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.errors import IllegalTransition
from pubsubflow.manager.handlers.tasks import is_early
from pubsubflow.manager.runs.lifecycle import RunLifecycle
from pubsubflow.manager.spec_cache import DagVersion
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LiveTask
from pubsubflow.model.runs import progress
from pubsubflow.model.runs.states import RunState, TaskState
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import Timer
from pubsubflow.model.wire.messages import (
    FiredMessage,
    Outcome,
    ResultMessage,
    RunInfo,
    StartedMessage,
    TaskError,
    encode,
)
from pubsubflow.model.wire.waits import Wait, WaitSet, encode_wait_set
from support.specs import dag, task, uri

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = 5
FINAL = TaskError("E", "no", final=True)


class Played:
    """A run, its lifecycle and its unit of work."""

    def __init__(self, *tasks, chance: float = 0.0, **options) -> None:
        self.uow = UnitOfWork(NOW)
        self.lifecycle = RunLifecycle(self.uow, new_id=lambda: str(uuid4()), chance=lambda: chance)
        spec = dag("d", *tasks, **options)
        info = RunInfo(RUN, str(uuid4()), "d", "manual", {}, None, None, "asked", NOW, ())
        self.lifecycle.start(RUN, DagVersion(1, 7, spec), encode(info), info, source="s")
        self.run = self.uow.runs.by_id[RUN]

    def stored(self, node: int = 0, **fields) -> LiveTask:
        """Treat a task as it is after a commit."""
        live = self.run.live[node, -1]
        live.stored, live.changed = True, False
        for name, value in fields.items():
            setattr(live, name, value)
        live.stored_as = (live.state, live.attempt)
        self.run.dispatch.clear()
        return live

    def report(self, outcome=Outcome.SUCCESS, node: int = 0, *, worker="w", **fields) -> None:
        live = self.run.live.get((node, -1), LiveTask())
        fence = fields.pop("fence", (live.attempt, live.delivery))
        moment = NOW.timestamp()
        self.lifecycle.attempt_ended(
            ResultMessage(RUN, node, -1, *fence, worker, outcome, moment, moment, **fields)
        )

    @property
    def states(self) -> dict[int, str]:
        ended = {task.node: task.state for task in self.run.ended_tasks}
        return ended | {node: task.state for (node, _), task in self.run.live.items()}


def test_a_run_starts_with_the_tasks_that_wait_for_nothing():
    played = Played(task("a"), task("b", "a"))
    assert played.run.dispatch == [(0, -1)]
    assert played.states == {0: "queued"}


def test_a_success_hands_out_what_follows_emits_and_ends_the_run():
    played = Played(task("a", emits=["x"]), task("b", "a"))
    played.report(value=b"\x01")
    assert played.run.dispatch == [(1, -1)]
    (event,) = played.uow.log.undecided
    assert (event.info.dataset, event.info.source, event.ancestry) == (uri("x"), "task", (7,))
    assert (event.run, event.node, event.info.task_id) == (RUN, 0, "a")
    played.report(node=1)
    assert played.run.outcome is RunState.SUCCESS
    assert played.run.uncounted
    assert played.run.results[0] == b"\x01"


def test_a_result_under_a_void_fence_changes_nothing():
    played = Played(task("a"))
    played.report(fence=(1, 2))
    played.report(fence=(2, 1))
    assert played.states == {0: "queued"}
    played.report()
    played.report(Outcome.FAILED, fence=(1, 1))
    assert played.states == {0: "success"}
    assert len(played.uow.outbox.attempts) == 1


def test_a_run_that_has_ended_cannot_end_again():
    played = Played(task("a"))
    played.report()
    with pytest.raises(IllegalTransition, match="run cannot go from success to cancelled"):
        played.lifecycle.cancel(played.run, "late")


def test_a_state_that_the_table_forbids_is_refused():
    played = Played(task("a"))
    live = played.stored(state=TaskState.READY)
    with pytest.raises(IllegalTransition, match="task cannot go from ready to deferred"):
        played.lifecycle.waits.defer(
            played.run,
            (0, -1),
            live,
            ResultMessage(
                RUN, 0, -1, 1, 1, "w", Outcome.DEFERRED, 0, 0, wait_set=wait_set("trigger")
            ),
        )


def test_a_failure_is_tried_again_after_its_delay_and_then_final():
    policy = RetryPolicy(1, delay_seconds=10, jitter=0.5)
    played = Played(task("a", retry=policy), chance=1.0)
    played.report(Outcome.FAILED, error=TaskError("E", "no"))
    assert played.states == {0: "up_for_retry"}
    (timer,) = played.uow.timers
    assert (timer.kind, timer.due_at, timer.attempt) == ("retry", NOW + timedelta(seconds=15), 1)
    assert played.uow.waits.retried == [(RUN, 0, -1)]
    (attempt,) = played.uow.runs.attempts
    assert (attempt.attempt, attempt.error.type) == (1, "E")
    played.lifecycle.retries.retry_due(timer)
    live = played.run.live[0, -1]
    assert (live.state, live.attempt, live.delivery) == ("queued", 2, 2)
    played.report(Outcome.FAILED, error=FINAL)
    assert played.states == {0: "failed"}
    assert played.run.outcome is RunState.FAILED


def test_a_timer_of_another_attempt_is_void():
    played = Played(task("a", retry=RetryPolicy(2, delay_seconds=10)))
    played.report(Outcome.FAILED, error=TaskError("E", "no"))
    played.lifecycle.retries.retry_due(Timer(NOW, "retry", 7, RUN, 0, -1, 2))
    assert played.states == {0: "up_for_retry"}


def test_the_first_crashes_cost_no_retry():
    played = Played(task("a"))
    for delivery in (2, 3):
        played.report(Outcome.CRASHED, error=TaskError("Crash", "gone"))
        live = played.run.live[0, -1]
        assert (live.attempt, live.delivery, live.state) == (1, delivery, "queued")
    played.report(Outcome.CRASHED, error=TaskError("Crash", "gone"))
    assert played.states == {0: "failed"}


def test_what_another_task_s_crash_has_ended_costs_nothing():
    played = Played(task("a"))
    for delivery in range(2, 6):
        played.report(Outcome.LOST, error=TaskError("Lost", "gone"))
        live = played.run.live[0, -1]
        assert (live.attempt, live.delivery, live.crashes) == (1, delivery, 0)


def test_a_runner_that_goes_straight_on_needs_no_order():
    played = Played(task("a"), task("b", "a"))
    played.run.dispatch.clear()
    played.report(then=1)
    live = played.run.live[1, -1]
    assert (live.state, live.chained, live.worker, played.run.dispatch) == (
        "running",
        True,
        "w",
        [],
    )
    played.report(node=1, worker="another", after=0)
    assert played.states[1] == "running", "only its worker may report it"
    played.report(node=1, after=0)
    assert played.run.outcome is RunState.SUCCESS


def test_a_chained_result_that_overtook_the_one_before_it_is_early():
    played = Played(task("a"), task("b", "a"), task("c", "b"))
    late = ResultMessage(RUN, 2, -1, 1, 1, "w", Outcome.SUCCESS, 0, 0, after=1)
    assert is_early(late, played.uow)
    foreign = ResultMessage(RUN, 2, -1, 1, 9, "w", Outcome.SUCCESS, 0, 0, after=1)
    assert not is_early(foreign, played.uow), "it belongs to another chain"
    played.report(then=1)
    played.report(node=1, then=2, after=0)
    assert not is_early(late, played.uow)


def test_what_a_lost_worker_went_straight_on_with_is_handed_out_again():
    played = Played(task("a"), task("b", "a"))
    played.run.dispatch.clear()
    played.report(then=1)
    played.lifecycle.worker_lost("another")
    assert played.run.dispatch == []
    played.lifecycle.worker_lost("w")
    live = played.run.live[1, -1]
    assert (played.run.dispatch, live.state, live.delivery, live.chained) == (
        [(1, -1)], "queued", 2, False
    )  # fmt: skip


def test_a_start_names_the_worker_and_a_second_one_takes_over():
    played = Played(task("a"))
    for worker in ("w1", "w2"):
        played.lifecycle.attempt_started(StartedMessage(RUN, 0, -1, 1, 1, worker, 3.0))
        assert played.run.live[0, -1].worker == worker
    assert played.run.live[0, -1].state == "running"
    assert played.run.live[0, -1].started_at == datetime.fromtimestamp(3.0, UTC)


def test_a_cancelled_run_ends_its_tasks_and_hands_out_nothing():
    played = Played(task("a"), task("b"))
    played.stored()
    played.lifecycle.cancel(played.run, "no need")
    assert played.states == {0: "cancelled", 1: "cancelled"}
    assert (played.run.outcome, played.run.cancelled, played.run.dispatch) == (
        "cancelled",
        True,
        [],
    )
    assert played.run.removed == [(0, -1)], "only what is stored is removed"


def test_a_run_that_outlives_its_timeout_fails():
    played = Played(task("a"), timeout_seconds=60)
    (timer,) = played.uow.timers
    assert (timer.kind, timer.due_at) == ("run_timeout", NOW + timedelta(seconds=60))
    played.lifecycle.time_out(timer)
    assert (played.run.outcome, played.states) == ("failed", {0: "cancelled"})


def wait_set(kind: str, **fields) -> bytes:
    return encode_wait_set(WaitSet("0", "it", (Wait(kind, "name", **fields),)))


def fired(**fields) -> FiredMessage:
    return FiredMessage(1, 3, 1, RUN, 0, -1, fields.pop("delivery", 1), 0, **fields)


def deferred(**fields) -> Played:
    played = Played(task("a"))
    played.report(Outcome.DEFERRED, wait_set=wait_set("trigger", **fields))
    played.run.dispatch.clear()
    return played


def test_a_deferred_task_goes_on_with_what_its_trigger_saw():
    played = deferred()
    assert played.states == {0: "deferred"}
    assert [each.slot for each in played.uow.waits.begun] == [0]
    end = played.lifecycle.waits.trigger_fired(fired(payload=encode("seen")))
    assert end is not None
    assert end.result is None
    played.lifecycle.wait_ended(end)
    live = played.run.live[0, -1]
    assert (live.state, live.attempt, live.delivery) == ("queued", 1, 2)
    assert played.run.dispatch == [(0, -1)]
    (row,) = played.uow.waits.journal
    assert (row.entry.kind, row.entry.error) == ("wait", None)
    assert [each.cancelled for each in played.uow.waits.ended] == [False]
    again = played.lifecycle.waits.trigger_fired(fired())
    assert again is None, "its task waits no longer"


def test_the_failure_of_a_trigger_counts_only_under_the_present_lease():
    played = deferred()
    failed = fired(error=TaskError("E", "gone"))
    assert played.lifecycle.waits.trigger_fired(failed) is None
    played.uow.waits.lease_epochs[1] = 3
    played.lifecycle.wait_ended(played.lifecycle.waits.trigger_fired(failed))
    (row,) = played.uow.waits.journal
    assert row.entry.error.type == "E"


def test_a_wait_that_lasts_too_long_goes_on_with_an_error():
    played = Played(task("a"))
    waits = WaitSet("0", "it", (Wait("trigger", "name"),), timeout_seconds=5)
    played.report(Outcome.DEFERRED, wait_set=encode_wait_set(waits))
    (timer,) = played.uow.timers
    assert (timer.kind, timer.due_at) == ("wait_timeout", NOW + timedelta(seconds=5))
    played.lifecycle.wait_ended(played.lifecycle.waits.timer_due(timer))
    assert played.uow.waits.journal[0].entry.error.type == "WaitTimeout"
    assert played.states == {0: "queued"}


def test_a_task_s_timeout_reaches_it_while_it_waits():
    played = Played(task("a", timeout_seconds=5))
    played.report(Outcome.DEFERRED, wait_set=wait_set("trigger"))
    (timer,) = played.uow.timers
    assert timer.kind == "task_timeout"
    played.lifecycle.wait_ended(played.lifecycle.waits.timer_due(timer))
    assert played.states == {0: "failed"}
    assert played.run.ended_tasks[-1].error.type == "TimeoutError"


def test_a_task_without_a_slot_is_ready_instead_of_queued():
    live = LiveTask()
    live.withhold()
    assert live.state is TaskState.READY
    waited = LiveTask(state=TaskState.QUEUED, stored_as=(TaskState.DEFERRED, 1))
    waited.withhold()
    assert waited.state is TaskState.READY
    ended = LiveTask(stored_as=(TaskState.SUCCESS, 1))
    with pytest.raises(IllegalTransition):
        ended.withhold()


@given(st.data(), st.booleans())
def test_no_more_of_a_mapped_task_are_ahead_of_others_than_the_window_and_all_are_made(
    data, grouped
):
    """Whatever starts, ends unseen, ends after its start, or is retried, in any order."""
    count = data.draw(st.integers(1, 9), label="count")
    started: set[tuple[int, int]] = set()
    retried: set[tuple[int, int]] = set()
    options = {"over": [count], "retry": RetryPolicy(retries=1)}
    tasks = [task("each", **options)]
    if grouped:
        options["map_group"] = "g"
        tasks = [task("each", **options), task("then", "each", **options)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "MAP_WINDOW", 3)
        played = Played(*tasks)
        while played.run.live:
            ahead = set(played.run.live) - started
            assert len(ahead - retried) <= 3
            assert ahead or len(started) >= 1
            key = data.draw(st.sampled_from(sorted(played.run.live)))
            live = played.run.live[key]
            fence = (live.attempt, live.delivery)
            if key not in started and data.draw(st.booleans(), label="starts"):
                started.add(key)
                played.lifecycle.attempt_started(StartedMessage(RUN, *key, *fence, "w", 3.0))
                continue
            fails = key not in retried and data.draw(st.booleans(), label="fails")
            outcome = Outcome.FAILED if fails else Outcome.SUCCESS
            started.discard(key)
            if fails:
                retried.add(key)
            played.lifecycle.attempt_ended(ResultMessage(RUN, *key, *fence, "w", outcome, 3.0, 3.0))
        for node in played.run.progress.nodes:
            assert (node.success, node.unmade) == (count, 0)
