"""Roles on some DAGs and datasets: on every route, nothing of a foreign DAG is seen or changed.

All that belongs to the foreign DAG has `zz` in its name; its neighbour feeds it and is fed by it.
"""

import re
from contextlib import asynccontextmanager
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from pubsubflow.api.auth.scopes import SCOPES
from pubsubflow.api.http.routing import Access
from pubsubflow.model.auth import Grant, Role
from pubsubflow.model.webhooks import Unverified, WebhookSpec
from pubsubflow.model.wire.messages import EmittedEvent
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.auth import TokenStore
from support.api import ApiHarness
from support.specs import check, dag, loaded, task
from support.stream_reader import Reader

pytestmark = pytest.mark.anyio
SHARED, OWN, HIDDEN = "x://shared", "x://own", "x://zz_hidden"
LIMITED = ("operator:tag=team:sales", "operator:dataset=x://shared", "viewer:dataset=x://own")
ALSO = ("?fate=true", "?limit=1", "?resent=true", "?checks=true", "?state=running&limit=1")


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


class Limited:
    """A client with a token of its own."""

    def __init__(self, url, session, token):
        self.url = url
        self.session = session
        self.headers = bearer(token)

    async def __call__(self, method, path, body=None, **headers):
        async with self.session.request(
            method, self.url + path, json=body, headers={**self.headers, **headers}
        ) as response:
            return response.status, await response.text()


@pytest.fixture
async def shared(serve, database, bus):
    """Two DAGs that feed each other, and a client that has a role on one of them alone."""
    store = TokenStore(database)
    admin = await store.create("the-admin", Role.ADMIN, by="test")
    grants = tuple(map(Grant.parse, LIMITED))
    limited = await store.create("the-limited", Role.EMITTER, grants=grants, by="test")
    mixed = await store.create(
        "the-mixed", Role.VIEWER, grants=[Grant.parse("operator:dag=load")], by="test"
    )
    headers = bearer(admin.token)
    async with serve() as (api, _), aiohttp.ClientSession(headers=headers) as session:
        harness = ApiHarness(api.url, session, bus, database)
        harness.api = api
        await harness.load(
            dag("load", task("work", emits=["own"]), on=[SHARED], tags=("team:sales",)),
            dag("zz_dag", task("zz_task", emits=["shared", "zz_hidden"]), on=[OWN]),
            dag(
                "zz_broken",
                task("zz_a"),
                on=[HIDDEN],
                params={"n": 1},
                params_from={"n": "event.extra.n"},
            ),
            check("zz_check", "shared", blocking=False),
        )
        async with aiohttp.ClientSession() as plain:
            harness.limited = Limited(api.url, plain, limited.token)
            harness.mixed = Limited(api.url, plain, mixed.token)
            yield harness


async def happened(harness):
    """Let the DAGs feed each other; return the runs of both."""
    foreign = await harness.start("zz_dag", cause="zz_cause", tags=["zz_tag"])
    await harness.finish(
        foreign, 0, value="zz", emits=[EmittedEvent(SHARED, {"n": 1}), EmittedEvent(HIDDEN, {})]
    )
    path = "/api/v1/runs?dag=load"
    own = (await harness.get_until(path, lambda found: found["items"]))["items"][0]["run_id"]
    await harness.write(own, 0, 0, "a line")
    await harness.finish(own, 0, value=[1], emits=[EmittedEvent(OWN, {})])
    await harness.wait(own, "success")
    await harness.get_until("/api/v1/runs?dag=zz_dag", lambda found: len(found["items"]) == 2)
    await harness.get_until("/api/v1/dead-letters", lambda found: found["items"])
    return own, foreign


def filled(path, **names):
    return re.sub(r"\{(\w+)\}", lambda found: str(names.get(found[1], "1")), path)


async def compare(shared, route, known, nothing):
    """What exists and may not be seen must answer as what does not exist."""
    place = f"{route.method} {route.path}"
    body = None if route.method == "GET" else {}
    status, text = await shared.limited(route.method, filled(route.path, **known), body)
    if (route.method, route.path) not in SCOPES:
        assert status == 403, place
        return
    other, expected = await shared.limited(route.method, filled(route.path, **nothing), body)
    assert status == other, (place, text, expected)
    assert status in (404, 422), (place, text)
    for real, unreal in zip(known.values(), nothing.values(), strict=True):
        text = text.replace(f"'{real}'", f"'{unreal}'")
    assert text == expected, place


async def test_requests_on_one_connection_have_rights_of_their_own(shared):
    async def seen(token_of):
        async with one.get(f"{shared.url}/api/v1/dags", headers=token_of) as response:
            return {each["dag_id"] for each in (await response.json())["items"]}

    admin = dict(shared.session.headers)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as one:
        everything = await seen(admin)
        assert {"load", "zz_dag"} <= everything
        assert await seen(shared.limited.headers) == {"load"}
        assert await seen(admin) == everything


async def test_no_route_shows_or_changes_anything_of_a_foreign_dag(shared):
    _, foreign = await happened(shared)
    letter = (await shared.get("/api/v1/dead-letters"))["items"][0]["id"]
    path = "/api/v1/dags/zz_dag/backfill"
    backfill = (await shared.post(path, {"partitions": ["zz"]}, status=200))["backfill_id"]
    absent = str(uuid4())
    known = {"dag_id": "zz_dag", "run_id": foreign, "number": letter, "name": "zz_check"}
    hidden = await shared.get(f"/api/v1/datasets/events?dataset={HIDDEN}")
    known.update(backfill_id=backfill, pool="zz", event_id=hidden["items"][0]["event_id"])
    nothing = {"dag_id": "aa_dag", "run_id": absent, "number": 99999, "name": "aa_check"}
    nothing.update(backfill_id=absent, pool="aa", event_id=absent)
    before = await shared.get("/api/v1/runs?limit=1000")
    for route in (route for part in shared.api._parts for route in part.routes()):
        if route.access in (Access.OPEN, Access.ANY, Access.EMITTER):
            continue
        if "{" in route.path or (route.method, route.path) not in SCOPES:
            of_run = "{run_id}" in route.path
            tasks = ("zz_task",) * 2 if of_run else (f"{foreign}.zz_task", f"{absent}.zz_task")
            await compare(shared, route, {**known, "task": tasks[0]}, {**nothing, "task": tasks[1]})
            continue
        if route.method == "GET" and not route.path.endswith(("/stream", "/detail")):
            for more in ("", *ALSO):
                status, text = await shared.limited("GET", route.path + more)
                # An unknown parameter, or what is shown: neither has a foreign name.
                assert status in (200, 400), (route.path, more, text)
                assert "zz" not in text, (route.path, more, text)
    assert await shared.get("/api/v1/runs?limit=1000") == before


async def test_schedules_of_dags_that_one_sees_and_ones_of_ones_own_can_be_simulated(shared):
    path, mine = "/api/v1/schedules/simulate", {"schedule": f"Dataset('{HIDDEN}')"}
    before = (await shared.get("/api/v1/audit"))["items"]
    for body in ({"dag": "load"}, mine, {**mine, "dag": "load"}):
        status, text = await shared.limited("POST", path, body)
        assert status == 200, text
    answers = [await shared.limited("POST", path, {"dag": each}) for each in ("zz_dag", "zz_none")]
    assert [status for status, _ in answers] == [404, 404]
    assert answers[0][1] == answers[1][1].replace("zz_none", "zz_dag")
    store = TokenStore(shared.database)
    emitter = await store.create("the-emitter", Role.EMITTER, datasets=[OWN], by="test")
    emits = Limited(shared.url, shared.limited.session, emitter.token)
    assert (await emits("POST", path, mine))[0] == 403
    # It changes nothing: of all this only the refusals are recorded.
    entries = (await shared.get("/api/v1/audit"))["items"]
    assert {each["status"] for each in entries[: len(entries) - len(before)]} == {403}


async def test_what_is_named_in_a_query_is_not_there_and_neighbours_show_their_own_side(shared):
    own, _ = await happened(shared)
    hidden = await shared.get(f"/api/v1/datasets/events?dataset={HIDDEN}")
    event = hidden["items"][0]["event_id"]
    events = await shared.get(f"/api/v1/datasets/events?dataset={OWN}")
    seen = events["items"][0]["event_id"]
    for path in (
        f"/api/v1/datasets/events/{event}/trace",
        f"/api/v1/datasets/events?event={event}",
        f"/api/v1/datasets/events?dataset={HIDDEN}",
        f"/api/v1/datasets/detail?dataset={HIDDEN}",
        "/api/v1/runs?dag=zz_dag",
        "/api/v1/tasks?dag=zz_dag",
        "/api/v1/backfills?dag=zz_dag",
        "/api/v1/check-results?check=zz_check",
        "/api/v1/held-events?check=zz_check",
    ):
        assert (await shared.limited("GET", path))[0] == 404, path
    for path in (
        f"/api/v1/datasets/detail?dataset={SHARED}",
        f"/api/v1/datasets/events?dataset={SHARED}&fate=true",
        f"/api/v1/runs/{own}",
        f"/api/v1/runs/{own}/explain",
        f"/api/v1/runs/{own}/trace",
        f"/api/v1/datasets/events/{seen}/trace",
        f"/api/v1/runs/{own}/tasks",
        "/api/v1/dags/load",
        "/api/v1/dags/load/why-not",
    ):
        status, text = await shared.limited("GET", path)
        assert (status, "zz" in text) == (200, False), (path, text)
    for path, count in (("runs", 1), ("dags", 1), ("datasets", 2), ("datasets/events", 2)):
        status, text = await shared.limited("GET", f"/api/v1/{path}?limit={count}")
        assert len(msgspec.json.decode(text)["items"]) == count, path


async def test_webhooks_are_shown_to_those_who_see_their_dataset(shared):
    hooks = [
        WebhookSpec(name, dataset, Unverified())
        for name, dataset in (("a_own", OWN), ("b_shared", SHARED), ("zz_hook", HIDDEN))
    ]
    await shared.catalog.save([loaded(file="zz_hooks.py", hooks=hooks)])
    shared.bus.publish(Subjects.DAGS_CHANGED, b"")
    path = "/api/v1/hooks"
    await shared.get_until(path, lambda found: len(found["items"]) == len(hooks))
    status, text = await shared.limited("GET", path)
    found = msgspec.json.decode(text)["items"]
    own = [("a_own", OWN), ("b_shared", SHARED)]
    assert [(each["name"], each["dataset"]) for each in found] == own
    assert (status, "zz" in text) == (200, False)
    # Also by pages: their cursor names no other.
    page = msgspec.json.decode((await shared.limited("GET", f"{path}?limit=1"))[1])
    rest = msgspec.json.decode((await shared.limited("GET", f"{path}?after={page['next']}"))[1])
    assert [each["name"] for each in page["items"] + rest["items"]] == ["a_own", "b_shared"]
    assert rest["next"] is None


async def test_actions_reach_the_own_dags_alone(shared):
    own, foreign = await happened(shared)
    limited = shared.limited
    for kind in ("runs", "tasks"):
        chosen = {
            "run_id": foreign,
            "cleared": 0,
            **({"chosen": ["zz_task"]} if kind == "tasks" else {}),
        }
        body = {"action": "clear", "runs": [chosen]}
        assert (await limited("POST", f"/api/v1/{kind}/bulk", body))[0] == 404
        body = {"action": "clear", "filter": {"state": ["success", "failed"]}, "dry_run": True}
        status, text = await limited("POST", f"/api/v1/{kind}/bulk", body)
        assert (status, own in text, "zz" in text) == (200, True, False)
        body["filter"]["dag"] = "zz_dag"
        assert (await limited("POST", f"/api/v1/{kind}/bulk", body))[0] == 404
        body["filter"] = {}
        assert (await limited("POST", f"/api/v1/{kind}/bulk", body))[0] == 422
    replay = {"from": "2020-01-01T00:00:00Z", "dry_run": True}
    status, text = await limited("POST", "/api/v1/datasets/replay", {**replay, "dags": ["zz_dag"]})
    assert status == 404
    status, text = await limited("POST", "/api/v1/datasets/replay", {**replay, "dataset": SHARED})
    assert (status, "zz" in text, "load" in text) == (200, False, True)
    events = "/api/v1/datasets/events"
    key = {"Idempotency-Key": "k"}
    assert (await limited("POST", events, {"dataset": SHARED}, **key))[0] == 202
    assert (await limited("POST", events, {"dataset": OWN}))[0] == 403  # a viewer of it
    assert (await limited("POST", events, [{"dataset": SHARED}, {"dataset": HIDDEN}]))[0] == 403
    # The same key of another sender is another request.
    await shared.post(events, {"dataset": SHARED}, headers=key)
    assert (await limited("POST", "/api/v1/dags/load/runs", {}))[0] == 201
    assert (await limited("POST", f"/api/v1/runs/{own}/retry", {}))[0] in (200, 409, 422)
    status, text = await limited("DELETE", "/api/v1/dags/load?dry_run=true")
    assert (status, "role admin on DAG load; yours there is operator" in text) == (403, True)
    refused = [each["action"] for each in (await shared.get("/api/v1/audit"))["items"]]
    assert "DELETE /api/v1/dags/{dag_id}" in refused


async def test_a_role_on_everything_is_kept_beside_grants(shared):
    mixed = shared.mixed
    assert "zz_dag" in (await mixed("GET", "/api/v1/dags"))[1]
    assert (await mixed("POST", "/api/v1/dags/load/runs", {}))[0] == 201
    assert (await mixed("POST", "/api/v1/dags/zz_dag/runs", {}))[0] == 403
    assert (await mixed("POST", "/api/v1/datasets/events", {"dataset": SHARED}))[0] == 403
    for dag_id, role in (("load", "operator"), ("zz_dag", "viewer"), ("unknown", "viewer")):
        status, text = await mixed("GET", f"/api/v1/me?dag={dag_id}")
        assert (status, f'"role":"{role}"' in text) == (200, True), text


@asynccontextmanager
async def reading(client, path):
    async with client.session.get(client.url + path, headers=client.headers) as response:
        yield await Reader(response, None).begin()


async def test_the_stream_shows_changes_of_the_own_dags_alone(shared):
    async with reading(shared.limited, "/api/v1/stream") as reader:
        own, _ = await happened(shared)
        seen = []
        while not any(f'"{own}"' in text and '"success"' in text for text in seen):
            seen += [str(each) for each in await reader.take()]
        assert any(SHARED in text for text in seen)
        assert [text for text in seen if "zz" in text] == []


async def test_tags_count_as_they_are_now(shared):
    assert (await shared.limited("GET", "/api/v1/dags/load"))[0] == 200
    await shared.load(dag("load", task("work", emits=["own"]), on=[SHARED], source="other"))
    shared.bus.publish("psf.ctl.dags", b"")
    async with await shared.bus.subscribe("psf.>", shared.signal.notify):

        async def gone():
            return [1] if (await shared.limited("GET", "/api/v1/dags/load"))[0] == 404 else None

        await shared.signal.wait_until(gone, seconds=20, poll_seconds=0.1)


async def test_a_graph_and_alerts_show_what_one_has_a_role_on(shared, database):
    await check_graph(shared)
    await check_alerts(shared, database)


async def check_graph(shared):
    """Own is fed by shared; that it leads back to it, by a foreign DAG, is not told."""
    path = "/api/v1/graph?up=5&down=5&around="
    status, text = await shared.limited("GET", path + SHARED)
    graph = msgspec.json.decode(text)
    assert (status, "zz" in text) == (200, False)
    steps = {each["name"]: each["step"] for each in graph["nodes"]}
    assert steps == {SHARED: 0, "load": 1, OWN: 1}
    names = [each["name"] for each in graph["nodes"]]
    ends = {(names[one], names[end]) for one, end in graph["edges"]}
    assert ends == {(SHARED, "load"), ("load", OWN)}
    status, text = await shared.limited("GET", path + OWN)
    steps = {each["name"]: each["step"] for each in msgspec.json.decode(text)["nodes"]}
    assert steps == {OWN: 0, "load": -1, SHARED: -1}
    hidden = await shared.limited("GET", path + HIDDEN)
    absent = await shared.limited("GET", path + "x://absent")
    assert (hidden[0], hidden[1].replace(HIDDEN, "x://absent")) == absent


async def check_alerts(shared, database):
    kinds = [("deadline", "load"), ("deadline", "zz_dag"), ("check", "check:zz_check")]
    about = [("load", None), ("zz_dag", None), ("check:zz_check", SHARED)]
    about += [(None, SHARED), (None, OWN), (None, HIDDEN)]
    kinds += [("freshness", each) for _, each in about[3:]]
    async with database.connection() as connection:
        await connection.executemany(
            "INSERT INTO alert (kind, subject, text, dag_id, dataset) "
            "VALUES ($1, $2, 'late', $3, $4)",
            [(*one, *other) for one, other in zip(kinds, about, strict=True)],
        )
    every = {each["subject"]: each["id"] for each in (await shared.get("/api/v1/alerts"))["items"]}
    status, text = await shared.limited("GET", "/api/v1/alerts")
    assert (status, "zz" in text) == (200, False)
    seen = {each["subject"] for each in msgspec.json.decode(text)["items"]}
    assert seen == {"load", SHARED, OWN}
    expected = {"load": 200, SHARED: 200, OWN: 403}
    for subject, number in every.items():
        found, _ = await shared.limited("POST", f"/api/v1/alerts/{number}/acknowledge", {})
        assert found == expected.get(subject, 404), subject
        found, text = await shared.limited("GET", f"/api/v1/alerts/{number}")
        assert found == (200 if subject in seen else 404)
        if found != 200:
            absent = await shared.limited("GET", "/api/v1/alerts/99999")
            assert text.replace(str(number), "99999") == absent[1].replace(str(number), "99999")
    after = (await shared.get("/api/v1/alerts?state=acknowledged"))["items"]
    assert {each["subject"] for each in after} == {"load", SHARED}
