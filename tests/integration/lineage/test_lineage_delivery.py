"""How events reach an endpoint that fails, hangs or is away, and what a restart leaves."""

import itertools
import json

import anyio
import pytest
from structlog.testing import capture_logs

from pubsubflow.errors import ConfigError
from pubsubflow.lineage import Lineage, LineageSettings, SendRetryPolicy
from support.lineage import ENDS
from support.signals import TIMEOUT_SECONDS
from support.specs import dag, task

pytestmark = pytest.mark.anyio

RUNS = 20


async def test_no_event_is_lost_while_the_endpoint_fails_and_hangs(harness, endpoint, lineage):
    endpoint.responses = itertools.cycle([500, 201, 503, "hang", 201, 201, 429, 201, 201])
    await harness.load(dag("many", task("first"), task("second", "first")))
    runs = [await harness.start("many") for _ in range(RUNS)]
    for run_id in runs:
        await harness.finish(run_id, 0)
        await harness.finish(run_id, 1)
    for run_id in runs:
        events = await endpoint.end_of(run_id)
        sent = {(event["job"]["name"], event["eventType"]) for event in events}
        assert sent == {
            (job, kind)
            for job in ("many", "many.first", "many.second")
            for kind in ("START", "COMPLETE")
        }
    assert endpoint.requests > len(endpoint.accepted)


async def test_what_was_accepted_is_not_sent_again_when_the_rest_is(harness, endpoint, lineage):
    mapped = task("part", over={"number": 8})
    await harness.load(dag("maps", mapped))
    run_id = await harness.start("maps")
    await endpoint.until(lambda: endpoint.of(run_id))
    endpoint.responses = itertools.chain([201, 201, *[500] * 12], itertools.repeat(201))
    for index in range(8):
        await harness.finish(run_id, 0, map_index=index)
    events = await endpoint.end_of(run_id)
    sent = [(event["run"]["runId"], event["eventType"]) for event in events]
    assert len(sent) == len(set(sent)) == 2 + 2 * 8


async def test_an_event_that_is_refused_for_ever_does_not_keep_back_the_others(
    harness, endpoint, lineage
):
    await harness.load(dag("refused", task("first"), task("second", "first")))
    run_id = await harness.start("refused")
    await endpoint.until(lambda: endpoint.of(run_id))
    endpoint.responses = iter([422])
    with capture_logs() as logs:
        await harness.finish(run_id, 0)
        await harness.finish(run_id, 1)
        await endpoint.until(lambda: len(endpoint.accepted) == 5)
    refused = [entry for entry in logs if entry["event"] == "lineage.event_rejected"]
    assert [entry["reason"] for entry in refused] == ["422 scripted"]
    assert endpoint.accepted[-1]["run"]["runId"] == str(run_id)
    assert endpoint.accepted[-1]["eventType"] == "COMPLETE"


async def test_a_wrong_key_loses_nothing(harness, endpoint, lineage):
    endpoint.responses = iter([401, 403, 404, 302, 401])
    await harness.load(dag("key", task("work")))
    run_id = await harness.start("key")
    await harness.finish(run_id, 0)
    assert len(await endpoint.end_of(run_id)) == 4


async def test_messages_wait_in_the_stream_while_no_service_runs(harness, endpoint, start_lineage):
    await harness.load(dag("later", task("work")))
    async with start_lineage():
        first = await harness.start("later")
        await endpoint.until(lambda: endpoint.of(first))
    await harness.finish(first, 0)
    await harness.until_ended(first)
    second = await harness.start("later")
    async with start_lineage():
        await endpoint.end_of(first)
        await endpoint.until(lambda: endpoint.of(second))
        await harness.finish(second, 0)
        await endpoint.end_of(second)


async def test_a_stop_while_the_endpoint_is_away_returns_the_messages(
    harness, endpoint, start_lineage
):
    await harness.load(dag("stopped", task("work")))
    endpoint.responses = itertools.repeat(500)
    async with start_lineage():
        run_id = await harness.start("stopped")
        await endpoint.until(lambda: endpoint.requests)
    await harness.finish(run_id, 0)
    endpoint.responses = iter(())
    async with start_lineage():
        await endpoint.end_of(run_id)


async def test_two_tellers_share_the_work(harness, endpoint, start_lineage):
    await harness.load(dag("shared", task("work")))
    async with start_lineage(), start_lineage():
        runs = [await harness.start("shared") for _ in range(10)]
        for run_id in runs:
            await harness.finish(run_id, 0)
        for run_id in runs:
            await endpoint.until(
                lambda run_id=run_id: any(
                    event["eventType"] in ENDS for event in endpoint.of(run_id)
                )
            )


async def test_messages_that_cannot_be_read_or_have_no_run_are_skipped(
    harness, endpoint, lineage, bus
):
    gone = {"run_id": "0" * 32, "dag_id": "gone", "state": "success"}
    await bus.publish_durable("psf.evt.run.bad", b"{")
    await bus.publish_durable("psf.evt.run.gone", json.dumps(gone).encode())
    await harness.load(dag("good", task("work")))
    run_id = await harness.start("good")
    await harness.finish(run_id, 0)
    await endpoint.end_of(run_id)
    answer = await bus.request("$JS.API.CONSUMER.INFO.PSF_EVT.lineage", b"", 5)
    with anyio.fail_after(TIMEOUT_SECONDS):
        while (info := json.loads(answer))["num_ack_pending"]:
            answer = await bus.request("$JS.API.CONSUMER.INFO.PSF_EVT.lineage", b"", 5)
    assert info["num_redelivered"] == 0


async def test_the_key_is_sent_and_never_shown(harness, endpoint, start_lineage):
    await harness.load(dag("secret", task("work")))
    with capture_logs() as logs:
        async with start_lineage(api_key="s3cret", namespace="prod"):
            run_id = await harness.start("secret")
            await harness.finish(run_id, 0)
            events = await endpoint.end_of(run_id)
    assert {headers["Authorization"] for headers in endpoint.headers} == {"Bearer s3cret"}
    assert {event["job"]["namespace"] for event in events} == {"prod"}
    assert "s3cret" not in str(logs)
    settings = LineageSettings(url="http://me:pw@lake/api/v1/lineage?k=v", api_key="s3cret")
    assert "s3cret" not in repr(settings)
    assert "pw" not in repr(settings)


@pytest.mark.parametrize("url", ["marquez:5000", "ftp://marquez/x", "http://", "http://[x/y"])
def test_what_is_no_endpoint_is_refused_at_the_start(url):
    with pytest.raises(ConfigError, match=r"lineage\.url"):
        Lineage(database=None, bus=None, settings=LineageSettings(url=url))


def test_a_key_that_no_header_takes_is_refused_at_the_start():
    settings = LineageSettings(url="http://marquez/x", api_key="a\nb")
    with pytest.raises(ConfigError, match=r"lineage\.api_key"):
        Lineage(database=None, bus=None, settings=settings)


def test_a_returned_message_is_delivered_later_each_time():
    policy = SendRetryPolicy(redeliver_seconds=5.0, max_redeliver_seconds=60.0)
    assert [policy.redelivery_delay(attempts) for attempts in (1, 2, 3, 4, 5, 10**6)] == [
        5.0,
        10.0,
        20.0,
        40.0,
        60.0,
        60.0,
    ]
