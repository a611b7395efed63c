"""ETags: what has not changed is not sent again; of many writers who saw the same, one writes."""

import json

import anyio
import pytest

from pubsubflow.authoring.registry import loading
from pubsubflow.model.wire.messages import Outcome
from pubsubflow.webhooks import Unverified, Webhook
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio
A = "s3://lake/a"
WRITERS = 24


async def answer(harness, method, path, **headers):
    body = headers.pop("json", None)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    async with harness.session.request(
        method, harness.url + path, headers=named, json=body
    ) as response:
        return response.status, response.headers.get("ETag"), await response.read()


async def test_what_is_known_already_is_not_sent_again(harness):
    await harness.load(dag("d", task("work")))
    run_id = await harness.start("d")
    for path in (
        "/api/v1/dags",
        "/api/v1/dags/d",
        "/api/v1/runs",
        f"/api/v1/runs/{run_id}",
        f"/api/v1/runs/{run_id}/tasks",
        f"/api/v1/tasks/{run_id}.work",
    ):
        status, etag, body = await answer(harness, "GET", path)
        assert (status, bool(body)) == (200, True)
        for known in (etag, f'"x", W/{etag}', "*"):
            assert await answer(harness, "GET", path, If_None_Match=known) == (304, etag, b""), path
        assert (await answer(harness, "HEAD", path))[:2] == (200, etag)
    _, before, _ = await answer(harness, "GET", f"/api/v1/runs/{run_id}")
    await harness.post(f"/api/v1/runs/{run_id}/cancel", status=200)
    status, after, _ = await answer(harness, "GET", f"/api/v1/runs/{run_id}", If_None_Match=before)
    assert status == 200
    assert after != before


async def test_malformed_conditions_are_refused(harness):
    await harness.load(dag("d", task("work")))
    for header, method in (("If-Match", "PATCH"), ("If-None-Match", "GET")):
        for text in ("x", '"a" "b"', '"a', "W/a", '*, "a"', '"a b"'):
            status, _, body = await answer(
                harness, method, "/api/v1/dags/d", json={"paused": True}, **{header: text}
            )
            assert (status, json.loads(body)["field"]) == (400, header), text
    assert not (await harness.get("/api/v1/dags/d"))["paused"]


async def test_a_pause_holds_for_what_was_seen_and_a_run_is_no_change(harness):
    await harness.load(dag("d", task("work")))
    _, etag, _ = await answer(harness, "GET", "/api/v1/dags/d")
    await harness.start("d")

    async def change(*, paused, match):
        reply = {} if match is None else {"If_Match": match}
        status, _, body = await answer(
            harness, "PATCH", "/api/v1/dags/d", json={"paused": paused}, **reply
        )
        return status, json.loads(body)

    status, shown = await change(paused=True, match=etag)
    assert (status, shown["paused"]) == (200, True)
    status, refused = await change(paused=False, match=f'W/"{shown["revision"]}", {etag}')
    assert status == 412
    assert shown["revision"] in refused["detail"]
    assert (await harness.get("/api/v1/dags/d"))["paused"]
    assert (await change(paused=True, match=f'"{shown["revision"]}"'))[1]["revision"] == shown[
        "revision"
    ]
    assert (await change(paused=False, match=f'"0-0", "{shown["revision"]}"'))[0] == 200
    await harness.load(dag("d", task("work"), task("more")))  # a new version
    assert (await change(paused=True, match=f'"{shown["revision"]}"'))[0] == 412
    for anything in ("*", None):
        assert (await change(paused=True, match=anything))[0] == 200


async def test_of_many_who_pause_what_they_all_saw_one_does(harness, serve):
    """Half of them ask another daemon's API; each round every one of them has seen the same."""
    await harness.load(dag("d", task("work")))
    async with serve() as (other, _):
        urls = (harness.url, other.url)
        for paused in (True, False, True):
            _, etag, _ = await answer(harness, "GET", "/api/v1/dags/d")
            reply = []

            async def write(number, etag=etag, paused=paused, reply=reply):
                async with harness.session.patch(
                    urls[number % 2] + "/api/v1/dags/d",
                    json={"paused": paused},
                    headers={"If-Match": etag},
                ) as response:
                    reply.append(response.status)

            async with anyio.create_task_group() as group:
                for number in range(WRITERS):
                    group.start_soon(write, number)
            assert sorted(reply) == [200] + [412] * (WRITERS - 1)
            assert (await harness.get("/api/v1/dags/d"))["paused"] is paused


@pytest.fixture
async def letter(harness):
    """A dead letter of a webhook, for which the page has no more than the request."""
    with loading("hooks.py") as collected:
        Webhook("h", dataset=A, verify=Unverified(), extra={"n": "body.n"})
    hooks = tuple(hook.to_spec() for hook in collected.hooks.values())
    await harness.catalog.save([loaded(file="hooks.py", hooks=hooks)])
    harness.bus.publish("psf.ctl.dags", b"")
    await harness.get_until("/api/v1/hooks", lambda found: found["items"])
    await harness.post("/hooks/h", {"m": 1}, status=422)
    (letter,) = (await harness.get("/api/v1/dead-letters"))["items"]
    return f"/api/v1/dead-letters/{letter['id']}"


async def test_of_many_who_edit_a_dead_letter_one_does_and_there_is_one_event(harness, letter):
    _, etag, body = await answer(harness, "GET", letter)
    shown = json.loads(body)
    reply = []

    async def edit(number):
        payload = {**shown["payload"], "body": {"n": number}}
        status, _, _ = await answer(
            harness, "POST", f"{letter}/resend", json={"payload": payload}, If_Match=etag
        )
        reply.append((status, number))

    async with anyio.create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(edit, number)
    assert sorted(status for status, _ in reply) == [200] + [412] * (WRITERS - 1)
    (winner,) = (number for status, number in reply if status == 200)
    (event,) = (await harness.get("/api/v1/datasets/events"))["items"]
    assert event["extra"] == {"n": winner}
    assert (await harness.post(f"{letter}/resend", {}, status=422))["detail"].endswith("already")


async def test_a_hooks_letter_that_still_cannot_be_stays(harness, letter):
    shown = await harness.get(letter)
    await harness.post(f"{letter}/resend", {}, status=422)
    large = {**shown["payload"], "body": {"n": "x" * 300_000}}
    refused = await harness.post(f"{letter}/resend", {"payload": large}, status=422)
    assert "larger than" in refused["detail"]
    assert (await harness.get(letter))["resent_at"] is None
    assert (await harness.get("/api/v1/datasets/events"))["items"] == []


async def test_a_failed_run_is_no_change_of_its_dag(harness):
    await harness.load(dag("d", task("work")))
    before = (await harness.get("/api/v1/dags/d"))["revision"]
    run_id = await harness.start("d")
    await harness.finish(run_id, 0, outcome=Outcome.FAILED)
    await harness.wait(run_id, "failed")
    assert (await harness.get("/api/v1/dags/d"))["revision"] == before
