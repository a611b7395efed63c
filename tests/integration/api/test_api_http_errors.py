"""What is no request, or asks for what cannot be, gets a problem document and breaks nothing."""

import json
from urllib.parse import quote, urlsplit

import anyio
import pytest

from support.specs import dag, task

pytestmark = pytest.mark.anyio


async def talk(harness, data):
    """Send bytes; return the status, the media type and the body of the answer."""
    parts = urlsplit(harness.url)
    with anyio.fail_after(20):
        async with await anyio.connect_tcp(parts.hostname, parts.port) as stream:
            await stream.send(data)
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            head, _, body = received.partition(b"\r\n\r\n")
            names = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            while len(body) < int(names[b"Content-Length"]):
                body += await stream.receive()
    return int(head.split()[1]), names[b"Content-Type"].decode(), body


NO_HTTP = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS where there is none
    b"GET /api/v1/runs HTTP/9.9\r\n\r\n",
    b"GET /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
    b"GET /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nA: \x00\r\n\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
    b"POST /api/v1/datasets/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
]
NOBODYS = [
    "/api/v1/dags/%00",
    "/api/v1/dags/a%00b/why-not",
    "/api/v1/runs?dag=%00",
    "/api/v1/datasets/events?dataset=s3://a/%00",
    "/api/v1/dags/d/why-not?partition=%00",
    "/api/v1/dead-letters/%00",
    "/api/v1/tasks/%00",
    "/api/v1/tasks/%00/logs",
    "/api/v1/runs/%00",
    "/api/v1/dags/%ff",
    "/api/v1/dags/" + quote("\ud800", errors="surrogatepass"),
    "/api/v1/runs?dag=" + quote("\ud800", errors="surrogatepass"),
    "/api/v1/runs?until=0001-01-01T00:00:00%2B14:00",
    "/api/v1/dead-letters/" + "9" * 400,
    "/api/v1/dead-letters/" + quote("٣"),
    "/api/v1/runs/x/wait?timeout=nan",
    "/api/v1/runs?limit=1e400",
    "/hooks/%00",
    "/%00",
]
NOT_STORED = [
    ("/api/v1/dags/d/runs", {"run_key": "a\x00"}),
    ("/api/v1/dags/d/runs", {"cause": "a\x00"}),
    ("/api/v1/dags/d/runs", {"logical_time": "9999-12-31T23:59:59-14:00"}),
    ("/api/v1/dags/d/runs", {"logical_time": "0001-01-01T00:00:00+14:00"}),
    ("/api/v1/dags/d/runs", {"params": {"a": 2**64}}),
    ("/api/v1/dags/d/runs", {"run_key": "tick:1"}),
    ("/api/v1/dags/d/backfill", {"partitions": ["a\x00"]}),
    ("/api/v1/dags/d/backfill", {"from": "0001-01-01T00:00:00+14:00"}),
    ("/api/v1/datasets/replay", {"from": "0001-01-01T00:00:00+14:00", "dags": ["d"]}),
]


async def test_what_is_no_http_gets_a_problem_document(harness):
    for data in NO_HTTP:
        status, kind, body = await talk(harness, data)
        assert (status, kind.partition(";")[0]) == (400, "application/problem+json"), data
        assert json.loads(body)["status"] == 400
        assert b"nonsense" not in body
    await harness.get("/healthz")


async def test_names_with_a_nul_are_refused(harness):
    await harness.load(dag("d", task("work")))
    for path in NOBODYS:
        method = b"POST" if path.startswith("/hooks") else b"GET"
        head = b"%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        status, kind, body = await talk(harness, head % (method, path.encode()))
        assert status in (400, 404, 422), (path, body)
        assert kind.partition(";")[0] == "application/problem+json", path


async def test_a_cloud_event_of_no_time_in_utc_is_refused(harness):
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "s3://a/b"}
    for time in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        headers = {f"ce-{name}": text for name, text in {**event, "time": time}.items()}
        problem = await harness.post("/api/v1/cloudevents", status=422, headers=headers)
        assert (problem["index"], problem["field"]) == (0, "time")


async def test_a_wait_takes_a_finite_time(harness):
    await harness.load(dag("d", task("work")))
    run_id = await harness.start("d")
    for text in ("nan", "inf", "-1", "301"):
        await harness.get(f"/api/v1/runs/{run_id}/wait?timeout={text}", status=400)


async def test_values_that_cannot_be_stored_are_refused(harness):
    await harness.load(dag("d", task("work")))
    for path, body in NOT_STORED:
        await harness.post(path, body, status=422)
