"""Events come in over HTTP, durable before they are acknowledged."""

import io
from codecs import BOM_UTF8
from urllib.parse import urlencode

import anyio
import msgspec
import pytest

from support.specs import dag, task

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/datasets/events"
A, B = "s3://lake/a", "s3://lake/b"


async def test_one_event_is_recorded_and_listed(harness):
    body = {"dataset": "S3://Lake/a/", "extra": {"rows": 3}, "partition": "p", "time": None}
    (event_id,) = (await harness.post(EVENTS, body))["ids"]
    (event,) = (await harness.get(EVENTS))["items"]
    assert event["event_id"] == event_id
    assert (event["dataset"], event["extra"], event["partition"]) == (A, {"rows": 3}, "p")
    assert (event["source"], event["run_id"]) == ("api", None)


async def test_a_list_gets_an_id_for_each_event_in_order(harness):
    ids = (await harness.post(EVENTS, [{"dataset": A, "extra": {"n": n}} for n in range(100)]))[
        "ids"
    ]
    events = (await harness.get(f"{EVENTS}?limit=1000"))["items"]
    assert {event["event_id"]: event["extra"]["n"] for event in events} == dict(
        zip(ids, range(100), strict=True)
    )


async def test_an_event_starts_the_run_that_waits_for_it(harness):
    await harness.load(dag("consumer", task("work"), on=[A]))
    await harness.post(EVENTS, {"dataset": A})
    (run,) = (await harness.get("/api/v1/runs?dag=consumer"))["items"]
    assert (run["state"], run["kind"]) == ("running", "dataset")


async def test_the_same_id_gives_200_and_the_first_id_and_no_second_run(harness):
    await harness.load(dag("consumer", task("work"), on=[A]))
    event = {"dataset": A, "id": "delivery-7"}
    first = await harness.post(EVENTS, event)
    again = await harness.post(EVENTS, event, status=200)
    assert again == {"ids": first["ids"], "duplicates": [0]}
    assert len((await harness.get("/api/v1/runs"))["items"]) == 1


async def test_the_same_id_for_another_dataset_is_another_event(harness):
    first = await harness.post(EVENTS, {"dataset": A, "id": "1"})
    other = await harness.post(EVENTS, {"dataset": B, "id": "1"})
    assert first["ids"] != other["ids"]


async def test_an_idempotency_key_covers_every_event_of_its_request(harness):
    events, headers = [{"dataset": A}, {"dataset": B}], {"Idempotency-Key": "k"}
    first = await harness.post(EVENTS, events, headers=headers)
    again = await harness.post(EVENTS, events, headers=headers, status=200)
    assert again["ids"] == first["ids"]
    assert len((await harness.get(EVENTS))["items"]) == 2


async def test_an_idempotency_key_stands_for_one_body(harness):
    headers = {"Idempotency-Key": "k"}
    first = await harness.post(EVENTS, {"dataset": A, "extra": {"a": 1, "b": 2}}, headers=headers)
    for other in (
        {"dataset": A, "extra": {"a": 2, "b": 2}},
        {"dataset": A, "extra": {"a": 1, "b": 2}, "id": "1"},
        [{"dataset": A, "extra": {"a": 1, "b": 2}}, {"dataset": B}],
        {"dataset": B, "extra": {"a": 1, "b": 2}},
    ):
        problem = await harness.post(EVENTS, other, headers=headers, status=422)
        assert "with another body before" in problem["detail"]
    # What was refused has used up no key and recorded nothing.
    assert len((await harness.get(EVENTS))["items"]) == 1
    await harness.post(EVENTS, {"dataset": A, "id": "1"})
    same = {"extra": {"b": 2, "a": 1}, "dataset": A + "/", "time": None}
    again = await harness.post(EVENTS, same, headers=headers, status=200)
    assert again["ids"] == first["ids"]


async def test_two_bodies_under_one_key_side_by_side_are_one_event(harness):
    statuses = []

    async def post(number):
        async with harness.session.post(
            harness.url + EVENTS,
            json={"dataset": A, "extra": {"n": number % 2}},
            headers={"Idempotency-Key": "k"},
        ) as response:
            statuses.append(response.status)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(post, number)
    assert sorted(statuses) == [200] * 9 + [202] + [422] * 10
    assert len((await harness.get(EVENTS))["items"]) == 1


async def test_of_an_id_the_first_event_stays(harness):
    first = await harness.post(EVENTS, {"dataset": A, "id": "1", "extra": {"n": 1}})
    again = await harness.post(EVENTS, {"dataset": A, "id": "1", "extra": {"n": 2}}, status=200)
    assert again == {"ids": first["ids"], "duplicates": [0]}
    (event,) = (await harness.get(EVENTS))["items"]
    assert event["extra"] == {"n": 1}


async def test_null_is_no_extra_as_for_the_other_fields(harness):
    body = {"dataset": A, "extra": None, "partition": None, "time": None, "id": None}
    await harness.post(EVENTS, body)
    (event,) = (await harness.get(EVENTS))["items"]
    assert event["extra"] == {}


async def test_a_list_with_something_new_is_202_and_names_the_duplicates(harness):
    await harness.post(EVENTS, {"dataset": A, "id": "1"})
    mixed = await harness.post(EVENTS, [{"dataset": B}, {"dataset": A, "id": "1"}])
    assert mixed["duplicates"] == [1]


async def test_the_same_id_side_by_side_gives_one_event(harness):
    found = []

    async def post():
        async with harness.session.post(
            harness.url + EVENTS, json={"dataset": A, "id": "1"}
        ) as response:
            found.append((response.status, (await response.json())["ids"][0]))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(post)
    assert sorted(status for status, _ in found) == [200] * 19 + [202]
    assert len({event_id for _, event_id in found}) == 1


@pytest.mark.parametrize(
    ("body", "status", "index", "field"),
    [
        ({"dataset": "no uri"}, 422, 0, "dataset"),
        ({}, 422, None, "dataset"),
        ({"dataset": 3}, 422, None, "dataset"),
        ([{"dataset": A}, {"dataset": A, "extra": [1]}], 422, 1, "extra"),
        ([{"dataset": A}, {"dataset": A, "extras": {}}], 422, 1, "extras"),
        ([{"dataset": A}, {"dataset": "s3://u:secret@lake/a"}], 422, 1, "dataset"),
        ({"dataset": A, "time": "yesterday"}, 422, None, "time"),
        ({"dataset": A, "time": "2026-11-20T12:00:00"}, 422, None, "time"),
        ({"dataset": A, "time": "0001-01-01T00:00:00+14:00"}, 422, 0, "time"),
        ({"dataset": A, "id": ""}, 422, None, "id"),
        ({"dataset": A, "partition": "x" * 513}, 422, None, "partition"),
        ([{"dataset": A}, {"dataset": A, "extra": {"n": 2**64}}], 422, 1, None),
        ({"dataset": A, "extra": {"deep": ["\0"]}}, 422, None, None),
        ("text", 422, None, None),
    ],
)
async def test_a_bad_event_is_refused_with_its_place_and_nothing_is_recorded(
    harness, body, status, index, field
):
    problem = await harness.post(EVENTS, body, status=status)
    assert problem["status"] == status
    assert problem.get("index") == index
    assert problem.get("field") == field
    assert "\n" not in problem["detail"]
    assert (await harness.get(EVENTS))["items"] == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"dataset": "\xff"}', b'{"dataset":"s3://a/b","extra":{"a":NaN}}']
)
async def test_what_is_no_json_is_400(harness, data):
    problem = await harness.request("POST", EVENTS, data=data, status=400)
    assert problem["title"] == "Bad Request"


async def test_a_byte_order_mark_before_json_is_ignored(harness):
    for path, kind, body in [
        (EVENTS, "application/json", {"dataset": A}),
        (
            "/api/v1/cloudevents",
            "application/cloudevents+json",
            {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": A},
        ),
    ]:
        await harness.request(
            "POST",
            path,
            data=BOM_UTF8 + msgspec.json.encode(body),
            headers={"Content-Type": kind},
            status=202,
        )


async def test_nesting_beyond_100_levels_is_422(harness):
    data = b'{"dataset":"s3://a/b","extra":{"a":' + b"[" * 101 + b"]" * 101 + b"}}"
    problem = await harness.request("POST", EVENTS, data=data, status=422)
    assert "levels deep" in problem["detail"]


async def test_deep_nesting_is_400(harness):
    data = b'{"dataset":"s3://a/b","extra":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    await harness.request("POST", EVENTS, data=data, status=400)


async def test_a_row_that_is_nested_too_deeply_is_shown_as_text_beside_others(harness, database):
    await harness.post(EVENTS, {"dataset": A})
    text = '{"a":' + "[" * 980 + "]" * 980 + "}"
    async with database.connection() as connection:
        # As a version without the limit stored it; the parameter's codec would encode a text.
        await connection.execute(f"UPDATE event SET extra = '{text}'::jsonb")
    await harness.post(EVENTS, {"dataset": A, "extra": {"n": 1}})
    newest, oldest = (await harness.get(EVENTS))["items"]
    assert newest["extra"] == {"n": 1}
    assert oldest["extra"]["nested_too_deeply"].startswith('{"a": [[[[')


async def test_an_escaped_backslash_is_no_nul(harness):
    await harness.post(EVENTS, {"dataset": A, "extra": {"path": "c:\\u0000"}})
    assert (await harness.get(EVENTS))["items"][0]["extra"] == {"path": "c:\\u0000"}


async def test_too_many_events_or_bytes_are_413(harness):
    too_many = await harness.post(EVENTS, [{"dataset": A}] * 1001, status=413)
    assert "1000" in too_many["detail"]
    large = io.BytesIO(b" " * (1 << 20) + b"{}")
    too_large = await harness.request("POST", EVENTS, data=large, status=413)
    assert "1048576" in too_large["detail"]


async def test_events_page_newest_first_also_of_one_dataset(harness):
    for n in range(7):
        await harness.post(EVENTS, {"dataset": A if n % 2 else B, "extra": {"n": n}})
    first = await harness.get(f"{EVENTS}?limit=4")
    rest = await harness.get(f"{EVENTS}?limit=4&after={first['next']}")
    assert [e["extra"]["n"] for e in first["items"] + rest["items"]] == [6, 5, 4, 3, 2, 1, 0]
    assert rest["next"] is None
    of_one = await harness.get(f"{EVENTS}?limit=2&dataset={A}")
    assert [e["extra"]["n"] for e in of_one["items"]] == [5, 3]
    await harness.get(f"{EVENTS}?dataset=s3://lake/nobody", status=404)
    await harness.get(f"{EVENTS}?dataset=nonsense", status=400)


async def test_events_are_listed_by_partition_and_the_time_at_which_they_came(harness):
    posted = []
    for dataset, partition in ((A, "p"), (A, "q"), (B, "p")):
        event = {"dataset": dataset, "partition": partition, "time": "2020-01-01T00:00:00Z"}
        posted += (await harness.post(EVENTS, event))["ids"]

    async def listed(**chosen):
        found = await harness.get(f"{EVENTS}?{urlencode(chosen)}")
        return [each["event_id"] for each in found["items"]]

    items = (await harness.get(EVENTS))["items"]
    moments = {each["event_id"]: each["recorded_at"] for each in items}
    first, second, third = (moments[each] for each in posted)
    assert await listed(since=second) == [posted[2], posted[1]]
    assert await listed(until=second) == [posted[0]], "when it came, not when it says it happened"
    assert await listed(since=second, until=third, dataset=A, fate="true") == [posted[1]]
    assert await listed(partition="p", dataset=A) == [posted[0]]
    assert await listed(since="2100-01-01T00:00:00Z") == []
    assert await listed(until=first) == []
    problem = await harness.get(f"{EVENTS}?partition=p", status=400)
    assert problem["detail"] == "a partition is of a dataset: give dataset=… as well"


async def test_datasets_show_their_last_event_and_their_consumers(harness):
    await harness.load(dag("consumer", task("work"), on=[A, B]))
    (event_id,) = (await harness.post(EVENTS, {"dataset": A}))["ids"]
    found = await harness.get("/api/v1/datasets")
    assert [each["dataset"] for each in found["items"]] == [A, B]
    assert [each["consumers"] for each in found["items"]] == [["consumer"], ["consumer"]]
    assert [each["last_event_id"] for each in found["items"]] == [event_id, None]
    page = await harness.get("/api/v1/datasets?limit=1")
    page = await harness.get(f"/api/v1/datasets?limit=1&after={page['next']}")
    assert [each["dataset"] for each in page["items"]] == [B]


async def test_a_dataset_has_producers_and_consumers(harness):
    x = "x://x"
    await harness.load(
        dag("makes", task("work", emits=["x"]), task("idle", emits=["other"])),
        dag("takes", task("work"), on="x & y"),
        dag("both", task("work"), on=[x]),
    )
    run = await harness.start("makes")
    await harness.begin(run, 0)
    await harness.finish(run, 0, emits=[x])
    path = f"/api/v1/datasets/detail?dataset={x}"
    await harness.get_until(path, lambda found: found["last_events"])
    await harness.post(EVENTS, {"dataset": x, "extra": {"n": 1}})
    found = await harness.get(path)
    assert [each["source"] for each in found["last_events"]] == ["api", "task"]
    assert found["sources"] == ["api"]
    (producer,) = found["producers"]
    assert (producer["dag_id"], producer["task_id"]) == ("makes", "work")
    assert producer["declared"]
    assert producer["last_event_at"] == found["last_events"][1]["recorded_at"]
    both, takes = found["subscribers"]
    assert (both["dag_id"], both["pending"], both["pending_since"]) == ("both", 0, None)
    assert (takes["dag_id"], takes["pending"]) == ("takes", 2)
    assert takes["pending_since"] == found["last_events"][1]["recorded_at"]
    assert found["alerts"] == []
    for uri, status in [("x://unknown", 404), ("no-uri", 400)]:
        await harness.get(f"/api/v1/datasets/detail?dataset={uri}", status=status)
