"""How events reach an endpoint that fails, hangs or is away, and what a restart leaves."""

import itertools
import json

import anyio
import pytest
from lineage_rig import ENDS, WAIT_SECONDS, dag, task
from structlog.testing import capture_logs

from pubsubflow.errors import ConfigError
from pubsubflow.lineage import Lineage, LineageSettings, Pace
from pubsubflow.model.spec import Factor

pytestmark = pytest.mark.anyio

RUNS = 20


async def test_no_event_is_lost_while_the_endpoint_fails_and_hangs(rig, endpoint, lineage):
    endpoint.moods = itertools.cycle([500, 201, 503, "hang", 201, 201, 429, 201, 201])
    await rig.load(dag("many", task(0, "first"), task(1, "second", after=(0,))))
    runs = [await rig.start("many") for _ in range(RUNS)]
    for run_id in runs:
        await rig.finish(run_id, 0)
        await rig.finish(run_id, 1)
    for run_id in runs:
        events = await endpoint.end_of(run_id)
        told = {(event["job"]["name"], event["eventType"]) for event in events}
        assert told == {
            (job, kind)
            for job in ("many", "many.first", "many.second")
            for kind in ("START", "COMPLETE")
        }
    assert endpoint.asked > len(endpoint.taken)


async def test_what_was_taken_is_not_told_again_when_the_rest_is(rig, endpoint, lineage):
    mapped = task(0, "part", factors=(Factor("number", length=8),))
    await rig.load(dag("maps", mapped))
    run_id = await rig.start("maps")
    await endpoint.until(lambda: endpoint.of(run_id))
    endpoint.moods = itertools.chain([201, 201, *[500] * 12], itertools.repeat(201))
    for index in range(8):
        await rig.finish(run_id, 0, map_index=index)
    events = await endpoint.end_of(run_id)
    told = [(event["run"]["runId"], event["eventType"]) for event in events]
    assert len(told) == len(set(told)) == 2 + 2 * 8


async def test_an_event_that_is_refused_for_ever_does_not_keep_back_the_others(
    rig, endpoint, lineage
):
    await rig.load(dag("refused", task(0, "first"), task(1, "second", after=(0,))))
    run_id = await rig.start("refused")
    await endpoint.until(lambda: endpoint.of(run_id))
    endpoint.moods = iter([422])
    with capture_logs() as logs:
        await rig.finish(run_id, 0)
        await rig.finish(run_id, 1)
        await endpoint.until(lambda: len(endpoint.taken) == 5)
    refused = [entry for entry in logs if entry["event"] == "lineage.refused"]
    assert [entry["reason"] for entry in refused] == ["422 as it was told"]
    assert endpoint.taken[-1]["run"]["runId"] == str(run_id)
    assert endpoint.taken[-1]["eventType"] == "COMPLETE"


async def test_a_wrong_key_loses_nothing(rig, endpoint, lineage):
    endpoint.moods = iter([401, 403, 404, 302, 401])
    await rig.load(dag("key", task(0, "work")))
    run_id = await rig.start("key")
    await rig.finish(run_id, 0)
    assert len(await endpoint.end_of(run_id)) == 4


async def test_news_waits_in_the_stream_while_nobody_tells(rig, endpoint, telling):
    await rig.load(dag("later", task(0, "work")))
    async with telling():
        first = await rig.start("later")
        await endpoint.until(lambda: endpoint.of(first))
    await rig.finish(first, 0)
    await rig.ended(first)
    second = await rig.start("later")
    async with telling():
        await endpoint.end_of(first)
        await endpoint.until(lambda: endpoint.of(second))
        await rig.finish(second, 0)
        await endpoint.end_of(second)


async def test_a_stop_while_the_endpoint_is_away_hands_the_news_on(rig, endpoint, telling):
    await rig.load(dag("stopped", task(0, "work")))
    endpoint.moods = itertools.repeat(500)
    async with telling():
        run_id = await rig.start("stopped")
        await endpoint.until(lambda: endpoint.asked)
    await rig.finish(run_id, 0)
    endpoint.moods = iter(())
    async with telling():
        await endpoint.end_of(run_id)


async def test_two_tellers_share_the_work(rig, endpoint, telling):
    await rig.load(dag("shared", task(0, "work")))
    async with telling(), telling():
        runs = [await rig.start("shared") for _ in range(10)]
        for run_id in runs:
            await rig.finish(run_id, 0)
        for run_id in runs:
            await endpoint.until(
                lambda run_id=run_id: any(
                    event["eventType"] in ENDS for event in endpoint.of(run_id)
                )
            )


async def test_news_that_cannot_be_read_or_has_no_run_is_passed_over(rig, endpoint, lineage, bus):
    gone = {"run_id": "0" * 32, "dag_id": "gone", "state": "success"}
    await bus.publish_durable("psf.evt.run.bad", b"{")
    await bus.publish_durable("psf.evt.run.gone", json.dumps(gone).encode())
    await rig.load(dag("good", task(0, "work")))
    run_id = await rig.start("good")
    await rig.finish(run_id, 0)
    await endpoint.end_of(run_id)
    answer = await bus.request("$JS.API.CONSUMER.INFO.PSF_EVT.lineage", b"", 5)
    with anyio.fail_after(WAIT_SECONDS):
        while (info := json.loads(answer))["num_ack_pending"]:
            answer = await bus.request("$JS.API.CONSUMER.INFO.PSF_EVT.lineage", b"", 5)
    assert info["num_redelivered"] == 0


async def test_the_key_is_sent_and_never_shown(rig, endpoint, telling):
    await rig.load(dag("secret", task(0, "work")))
    with capture_logs() as logs:
        async with telling(api_key="s3cret", namespace="prod"):
            run_id = await rig.start("secret")
            await rig.finish(run_id, 0)
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


def test_returned_news_comes_again_later_each_time():
    pace = Pace(return_seconds=5.0, max_return_seconds=60.0)
    assert [pace.return_delay(attempts) for attempts in (1, 2, 3, 4, 5, 10**6)] == [
        5.0,
        10.0,
        20.0,
        40.0,
        60.0,
        60.0,
    ]
