"""Callbacks and alerts through a real daemon."""

from functools import partial
from pathlib import Path

import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("dags")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("alerts") / "home"


@pytest.fixture(scope="module")
def url(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW_CONN_PAGER", "x://ann:hush-hush@elsewhere/")
        patch.setenv("PUBSUBFLOW__ALERTS__RETRIES", "1")
        patch.setenv("PUBSUBFLOW__ALERTS__RETRY_DELAY_SECONDS", "0.1")
        with child_daemon(DAGS, home=home, port=0) as url:
            yield url


@pytest.fixture
async def client(url):
    async with Client(url) as client:
        yield client


async def called(read):
    """Return what `read` returns once all its calls have ended."""

    async def check():
        found = await read()
        ended = found.callbacks and all(each.ended_at for each in found.callbacks)
        return found if ended else None

    # The end of a call is stored, and not announced.
    return await Signal().wait_until(check, seconds=45, poll_seconds=0.1)


async def test_outcomes_of_tasks_and_runs_are_told(client):
    """Once each; what fails is tried again, and changes no outcome; secrets are masked."""
    run_id = await client.trigger("told")
    run = await client.wait(run_id, timeout_seconds=60)
    assert run.state == "failed"
    run = await called(lambda: client.run(run_id))
    calls = [(each.name, each.state, each.tries) for each in run.callbacks]
    assert calls == [("say", "success", 1), ("broken", "failed", 2), ("crashes", "failed", 2)]
    assert "failed tasks: fails" in run.callbacks[0].output
    assert run.callbacks[1].error == "ValueError: cannot tell, try 2"
    assert "signal 9" in run.callbacks[2].error or "SIGKILL" in run.callbacks[2].error
    found = {}
    for name in ("fails", "skips", "works"):
        found[name] = (await called(partial(client.task, run_id, name))).callbacks
    assert [(each.kind, each.name, each.attempt) for each in found["fails"]] == [
        ("on_retry", "say", 1),
        ("on_failure", "say", 2),
        ("on_failure", "reads", 2),
    ]
    assert found["fails"][2].output == "the password is ***"
    assert [each.kind for each in found["skips"]] == ["on_skipped"]
    assert "was skipped: Skip: why" in found["skips"][0].output
    assert [each.kind for each in found["works"]] == ["on_success"]
