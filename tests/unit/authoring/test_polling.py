"""Sensors that look: until they are done, or their time is over, or they raise too often."""

from datetime import timedelta

import pytest

from pubsubflow import DAG, Context, DefinitionError, Poked, dag, task
from pubsubflow.model.runs.polling import next_delay, postponed_look
from pubsubflow.model.spec import PollSpec
from pubsubflow.model.wire.waits import POLL, Wait, WaitSet

MINUTE = timedelta(minutes=1)


def sensor_dag(function, **options):
    @dag
    def d():
        @task(trigger_rule="none_failed")
        def after(found):
            return found

        after(task.sensor(task_id="look", **{"every": MINUTE} | options)(function)())

    return d


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_sensor_looks_until_it_is_done_and_its_value_is_its_result(concurrent):
    looks = []

    def look(ctx: Context):
        looks.append(ctx.attempt)
        return Poked(len(looks) == 4, {"looks": len(looks)})

    async def look_async(ctx: Context):
        return look(ctx)

    result = sensor_dag(look_async if concurrent else look).test()
    assert result.result("after") == {"looks": 4}
    assert looks == [1] * 4
    assert (result.ended_at - result.started_at) == 3 * MINUTE


def test_a_plain_true_has_no_result():
    result = sensor_dag(lambda: True).test()
    assert (result.state, result.result("look")) == ("success", None)


def test_a_timeout_counts_over_all_looks_and_is_final():
    result = sensor_dag(lambda: False, timeout=3.5 * 60, retries=5).test()
    (ended,) = result.tasks["look"]
    assert (ended.state, ended.attempts) == ("failed", 1)
    assert ended.error.message == "it was not done after 210 s in 4 looks"


def test_a_soft_failure_is_skipped():
    result = sensor_dag(lambda: False, timeout=200, soft_fail=True).test()
    assert (result.state, result.tasks["look"][0].state) == ("success", "skipped")


def test_an_exception_follows_the_retry_policy():
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 2:
            raise ValueError("away")
        return len(looks) == 4

    assert sensor_dag(look, retries=1).test().state == "success"
    looks.clear()
    assert sensor_dag(look).test(raise_on_error=False).state == "failed"


@pytest.mark.parametrize("value", [None, 1, "yes", [1]])
def test_a_look_that_returns_something_else_fails_for_good(value):
    result = sensor_dag(lambda: value, retries=3).test(raise_on_error=False)
    (ended,) = result.tasks["look"]
    assert (ended.state, ended.attempts) == ("failed", 1)
    assert "returns True, False or Poked(done, value)" in ended.error.message


def test_a_look_may_not_wait_by_itself():
    async def look(ctx: Context):
        await ctx.sleep(1)

    result = sensor_dag(look).test(raise_on_error=False)
    assert "looks anew each time: return False" in result.tasks["look"][0].error.message


def test_a_sensor_is_mapped_like_any_task():
    seen = {}

    @dag
    def d():
        @task.sensor(every=1)
        def look(n):
            seen[n] = seen.get(n, 0) + 1
            return Poked(seen[n] > n, n)

        @task
        def total(found):
            return sum(found)

        total(look.expand(n=[1, 2, 3]))

    assert d.test().result("total") == 6
    assert seen == {1: 2, 2: 3, 3: 4}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"poke_interval": 60, "mode": "reschedule"}, "write every= in place of poke_interval="),
        ({}, "needs what it waits for"),
        ({"every": 0}, "every=0 must be more than zero"),
        ({"every": 1, "soft_fail": 1}, "soft_fail=1 must be True or False"),
        ({"every": 1, "backoff": 0.5}, "backoff=0.5 must be from 1"),
        ({"every": 1, "mode": "poke"}, "a sensor holds no slot"),
    ],
)
def test_bad_keywords_are_errors_of_their_line(given, error):
    with pytest.raises(DefinitionError, match=error), DAG("d"):
        task.sensor(task_id="t", **given)(lambda: True)


def test_a_sensor_waits_for_an_event_or_looks():
    with pytest.raises(DefinitionError, match="leave out one"):
        task.sensor(MINUTE, every=MINUTE)


def test_backoff_grows_up_to_its_bound():
    poll = PollSpec(10.0, backoff=2.0, max_every_seconds=60.0)
    assert [next_delay(poll, looks) for looks in range(1, 6)] == [10, 20, 40, 60, 60]
    assert next_delay(PollSpec(1.0, backoff=100.0), 10**6) < float("inf")


def test_looks_that_are_late_after_a_restart_are_spread_once():
    poll = PollSpec(60.0)
    wait_set = WaitSet(POLL, "x", (Wait("time", "x", due_at=1000.0),), looks=3)
    later = [postponed_look(poll, wait_set, (run, 0, -1), 1000.0, 2000.0) for run in range(1000)]
    assert all(2000 <= moment <= 2060 for moment in later)
    tenths = [sum(1 for each in later if int((each - 2000) // 6) == n) for n in range(10)]
    assert min(tenths) > 50
    assert postponed_look(poll, wait_set, (1, 0, -1), later[1], 3000.0) is None
    assert postponed_look(poll, wait_set, (1, 0, -1), 1000.0, 1001.0) is None
