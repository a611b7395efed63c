"""The client against a real server, and against servers that are busy, away, or none."""

import json
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pubsubflow.client import Client, RequestFailed, RequestRefused
from pubsubflow.errors import ConfigError, Unavailable
from support.specs import dag, task

pytestmark = pytest.mark.anyio
INFO = {
    "version": "1",
    "pid": 1,
    "started_at": "2026-11-20T00:00:00Z",
    "workers": [],
    "import_errors": 0,
}


@pytest.fixture
async def client(harness):
    async with Client(harness.url) as client:
        yield client


async def every(found):
    return [each async for each in found]


async def test_lists_are_complete_or_limited(client):
    await client.emit([{"dataset": f"s3://lake/{n % 3}", "extra": {"n": n}} for n in range(1000)])
    await client.emit([{"dataset": "s3://lake/3", "extra": {"n": 1000 + n}} for n in range(200)])
    everything = await every(client.events())
    assert [event.extra["n"] for event in everything] == list(range(1199, -1, -1))
    assert len(await every(client.events(limit=1100))) == 1100
    assert len(await every(client.events(dataset="s3://lake/3", limit=5))) == 5
    two = [each.dataset async for each in client.datasets(limit=2)]
    assert two == ["s3://lake/0", "s3://lake/1"]


async def test_dags_and_runs(harness, client):
    await harness.load(*(dag(f"d{n}", task("work")) for n in range(3)))
    assert [each.dag_id for each in (await client.dags()).items] == ["d0", "d1", "d2"]
    assert len((await client.dags(limit=2)).items) == 2
    run_id = await client.trigger("d0", run_key="k")
    assert await client.trigger("d0", run_key="k") == run_id
    assert (await client.wait(run_id, timeout_seconds=0.1)).state == "running"
    assert (await every(client.tasks(run_id)))[0].id == f"{run_id}.work"
    assert (await client.cancel(run_id)).state == "cancelled"
    assert (await client.wait(run_id)).state == "cancelled"
    with pytest.raises(RequestFailed, match="has ended"):
        await client.cancel(run_id)
    with pytest.raises(RequestRefused, match="no run named"):
        await client.run("no/such run?")
    assert (await client.readiness()).ready
    assert (await client.info()).version


async def test_a_change_is_made_to_what_was_seen_or_not_at_all(harness, client):
    await harness.load(dag("d", task("work")))
    seen = await client.dag("d")
    assert (await client.set_paused("d", paused=True, revision=seen.revision)).paused
    with pytest.raises(RequestFailed, match="has changed since you looked") as failure:
        await client.set_paused("d", paused=False, revision=seen.revision)
    assert failure.value.problem.status == 412
    assert (await client.dag("d")).paused


async def test_a_follower_notices_that_the_server_goes(serve, harness):
    await harness.load(dag("d", task("work")))
    run_id = await harness.start("d")
    async with serve() as (api, stopping), Client(api.url) as client:
        lines = client.logs(run_id, "work", follow=True)
        await harness.write(run_id, 0, 0, "a")
        with anyio.fail_after(20):
            assert (await anext(lines)).message == "a"
            assert (await client.find_output(run_id, "work", "A")).lines == [0]
            assert (await client.output_lines(run_id, "work", first=0)).items[0].message == "a"
            stopping.set()
            with pytest.raises(Unavailable, match="the connection was lost"):
                await every(lines)


@asynccontextmanager
async def serving(handle, tls=None):
    """A server that answers everything by a function."""

    async def answer(request):
        return handle(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def problem(status, **headers):
    body = {"title": "x", "status": status, "detail": "not now"}
    return web.Response(text=json.dumps(body), status=status, headers=headers)


async def test_no_server_and_another_server():
    with pytest.raises(Unavailable, match="no server answers"):
        async with Client("http://127.0.0.1:9") as client:
            await client.info()
    for status in (200, 302, 404):
        answer = {"status": status, "headers": {"Location": "http://127.0.0.1:9"}}
        async with (
            serving(lambda _, answer=answer: web.Response(text="<p>", **answer)) as url,
            Client(url) as client,
        ):
            with pytest.raises(Unavailable, match=f"answers {status}.* not a pubsubflow server"):
                await client.info()


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:y", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="is not the URL of a server"):
        Client(url)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "ł"])
def test_what_is_no_token_is_refused_and_not_repeated(token):
    with pytest.raises(ConfigError, match="the token is invalid") as refusal:
        Client("http://127.0.0.1:8080", token=token)
    assert not token or token not in str(refusal.value)


async def test_idempotent_requests_are_retried_when_the_server_cannot_answer_now():
    seen = []

    def handle(request):
        seen.append((request.method, request.path, request.headers.get("Authorization")))
        if len(seen) % 3:
            return problem(503 if len(seen) % 3 == 1 else 429, **{"Retry-After": "0"})
        if request.method == "POST":
            return web.json_response({"ids": ["1"]})
        return web.json_response(INFO)

    async with serving(handle) as url, Client(url, token="t1") as client:
        assert (await client.info()).version == "1"
        assert (await client.emit([{"dataset": "s3://a/b"}])).ids == ["1"]
        assert seen[0] == ("GET", "/api/v1/info", "Bearer t1")
        assert len(seen) == 6
        with pytest.raises(Unavailable, match="not now"):
            await client.cancel("x")  # a second cancellation is another question
        assert len(seen) == 7


async def test_a_server_that_stays_busy_is_given_up_at_once_when_it_asks_for_long_patience():
    requested = []

    def handle(request):
        requested.append(request.path)
        return problem(429, **{"Retry-After": "3600"})

    async with serving(handle) as url, Client(url) as client:
        with pytest.raises(Unavailable, match="not now"):
            await client.info()
    assert len(requested) == 1


async def test_a_connection_that_the_server_closed_is_made_again():
    calls = []

    def once(request):
        calls.append(request.path)
        if len(calls) == 2:  # on the connection that was kept
            request.transport.abort()
        return web.json_response(INFO)

    async with serving(once) as url, Client(url) as client:
        await client.info()
        await client.info()
    assert len(calls) == 3


@pytest.fixture
def certificate(tmp_path):
    """A certificate of 127.0.0.1 that signs itself, as a context for servers and as a file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    here = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = tmp_path / "ca.pem"
    file.write_bytes(signed.public_bytes(pem))
    both = tmp_path / "both.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    both.write_bytes(private + file.read_bytes())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(both)
    return tls, file


async def test_a_server_is_believed_by_the_authority_that_is_named(certificate, tmp_path):
    tls, file = certificate
    async with serving(lambda _: web.json_response(INFO), tls) as address:
        url = address.replace("127.0.0.1", "localhost")
        async with Client(url, ca=file) as client:
            assert (await client.info()).version == "1"
        async with Client(url) as client:
            with pytest.raises(Unavailable, match=r"certificate.*--ca"):
                await client.info()
    (tmp_path / "none.pem").write_text("nothing")
    for wrong in ("none.pem", "missing.pem"):
        with pytest.raises(ConfigError, match=f"{wrong} cannot be used"):
            Client(url, ca=tmp_path / wrong)
