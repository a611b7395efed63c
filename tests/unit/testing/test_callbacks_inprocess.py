"""Callbacks of in-process runs, called when a test says so."""

import anyio
import anyio.lowlevel
import pytest

from pubsubflow import Fail, Skip, dag, task

CALLED = []


def say(ctx):
    print(ctx.text)
    CALLED.append(ctx.kind)
    ctx.log.info("said", attempt=ctx.attempt)


async def reads(ctx):
    await anyio.lowlevel.checkpoint()
    print(ctx.connection("pager").secrets["token"], ctx.variable("room"), ctx.variable("no", 1))


def broken(ctx):
    raise ValueError(f"cannot tell of {ctx.task.task_id}")


@dag(on_failure=say, on_success=broken)
def told():
    @task(retries=1, on_retry=say, on_failure=[reads, broken])
    def fails():
        raise OSError("no")

    @task(on_skipped=say)
    def skips():
        raise Skip("why")

    @task(on_success=say, on_failure=broken)
    def works():
        return 1

    @task(on_failure=broken, on_skipped=broken)
    def never(_):
        raise Fail("it does not start")

    never(fails())
    skips()
    works()


@pytest.fixture(autouse=True)
def nothing_called():
    CALLED.clear()


def test_callbacks_are_called_after_the_run_where_a_test_says_so():
    given = {"connections": {"pager": {"secrets": {"token": "t"}}}, "variables": {"room": "r"}}
    assert told.test(**given).callbacks == CALLED == []
    result = told.test(**given, callbacks=True)
    assert result.state == "failed"
    calls = {(each.kind, each.name, each.task_id): each for each in result.callbacks}
    assert calls.keys() == {
        ("on_retry", "say", "fails"),
        ("on_failure", "reads", "fails"),
        ("on_failure", "broken", "fails"),
        ("on_skipped", "say", "skips"),
        ("on_success", "say", "works"),
        ("on_failure", "say", None),
    }
    assert calls["on_failure", "reads", "fails"].output == "t r 1\n"
    assert str(calls["on_failure", "broken", "fails"].error) == "cannot tell of fails"
    text = calls["on_failure", "say", None].output
    assert "failed tasks: fails" in text
    assert text.endswith("info said attempt=0\n")
    assert "is tried again after attempt 1: OSError: no" in calls["on_retry", "say", "fails"].output
    assert result.callbacks[-1].task_id is None


@pytest.mark.anyio
async def test_they_run_beside_a_loop_and_need_their_connections():
    result = await told.atest(select="fails", callbacks=True)
    read = next(each for each in result.callbacks if each.name == "reads")
    assert "test(connections={'pager': 'https://…'})" in str(read.error)
