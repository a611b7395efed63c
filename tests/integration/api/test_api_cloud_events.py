"""CloudEvents come in over HTTP in every form of the standard, as its own SDK sends them."""

import base64
import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.specs import dag, task

pytestmark = pytest.mark.anyio

PATH = "/api/v1/cloudevents"
URI = "s3://lake/orders"
WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
BATCH = "application/cloudevents-batch+json"
FORMS = pytest.mark.parametrize("form", [to_binary_event, to_structured_event])


def attributes(**given):
    return {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "order.paid",
        "subject": URI,
        **given,
    }


def cloud_event(data=None, **given):
    return CloudEvent(attributes(time=WHEN, **given), data)


async def send(harness, message, *, status=202):
    headers = dict(message.headers)
    return await harness.request("POST", PATH, status=status, data=message.body, headers=headers)


async def batch(harness, *events, status=202):
    headers = {"Content-Type": BATCH}
    return await harness.request(
        "POST", PATH, status=status, data=json.dumps(events), headers=headers
    )


async def listed(harness):
    return (await harness.get("/api/v1/datasets/events"))["items"]


@FORMS
async def test_an_event_of_the_sdk_is_recorded_and_starts_its_run(harness, form):
    await harness.load(dag("consumer", task("work"), on=[URI]))
    event = cloud_event({"rows": 3}, datacontenttype="application/json", partitionkey="p")
    (event_id,) = (await send(harness, form(event)))["ids"]
    (found,) = await listed(harness)
    assert (found["event_id"], found["dataset"], found["partition"]) == (event_id, URI, "p")
    assert found["source"] == "cloudevents"
    assert datetime.fromisoformat(found["time"]) == WHEN
    reply = found["extra"].pop("cloudevent")
    assert found["extra"] == {"rows": 3}
    assert (reply["id"], reply["source"], reply["type"]) == ("1", "/shop", "order.paid")
    (run,) = (await harness.get("/api/v1/runs?dag=consumer"))["items"]
    assert run["kind"] == "dataset"


@FORMS
async def test_the_same_event_again_is_known_in_either_form(harness, form):
    event = cloud_event({"rows": 3}, datacontenttype="application/json")
    first = await send(harness, to_binary_event(event))
    again = await send(harness, form(event), status=200)
    assert again == {"ids": first["ids"], "duplicates": [0]}


async def test_an_id_is_unique_within_its_source_alone(harness):
    first = await batch(harness, attributes(), attributes(source="/other"))
    assert len(set(first["ids"])) == 2
    assert first["duplicates"] == []


async def test_a_batch_is_recorded_in_order(harness):
    ids = (await batch(harness, *(attributes(id=str(n), data=n) for n in range(50))))["ids"]
    found = {event["event_id"]: event["extra"]["data"] for event in await listed(harness)}
    assert found == dict(zip(ids, range(50), strict=True))
    assert (await batch(harness, status=200))["ids"] == []


async def test_data_that_is_no_object_is_kept_under_a_name(harness):
    binary = base64.b64encode(b"\xff").decode()
    await batch(harness, attributes(data=[1]), attributes(id="2", data_base64=binary))
    await batch(harness, attributes(id="3"))
    extras = [event["extra"] for event in reversed(await listed(harness))]
    assert [{k: v for k, v in extra.items() if k != "cloudevent"} for extra in extras] == [
        {"data": [1]},
        {"data_base64": binary},
        {},
    ]


async def test_text_in_a_binary_event_is_data_and_other_bytes_are_refused(harness):
    headers = {f"ce-{name}": value for name, value in attributes().items()}
    headers["Content-Type"] = "text/plain"
    await harness.request("POST", PATH, status=202, data="é".encode(), headers=headers)
    assert (await listed(harness))[0]["extra"]["data"] == "é"
    await harness.request("POST", PATH, status=415, data=b"\xff", headers=headers)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"specversion": "0.3"}, "send 1.0"),
        ({"subject": None}, "must name the dataset"),
        ({"subject": "no uri"}, "no uri"),
        ({"id": ""}, "id"),
        ({"time": "noon"}, "time"),
        ({"data": {"n": 2**70}}, "64 bits"),
    ],
    ids=lambda each: str(each)[:30],
)
async def test_an_invalid_event_is_refused_with_its_index(harness, changes, said):
    problem = await batch(harness, attributes(), attributes(**{"id": "2", **changes}), status=422)
    assert said in problem["detail"]
    assert problem["index"] == 1
    assert await listed(harness) == []


async def test_the_refusal_of_another_request_says_what_a_cloud_event_needs(harness):
    problem = await harness.request("POST", PATH, status=415, data="{}")
    assert "ce-…" in problem["detail"]
    headers = {"Content-Type": "application/cloudevents+json"}
    await harness.request("POST", PATH, status=400, data="{", headers=headers)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time"]
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20),
    ),
    kind=st.sampled_from([BATCH, "application/cloudevents+json", "application/json", "text/x"]),
    data=st.binary(max_size=40) | st.sampled_from([b"[]", b"{}", b"[[[", b'[{"id": 1}]', b"\xff"]),
)
async def test_no_request_breaks_the_server(harness, headers, kind, data):
    whole = headers | {"Content-Type": kind}
    async with harness.session.post(f"{harness.url}{PATH}", data=data, headers=whole) as response:
        assert response.status < 500, await response.text()
