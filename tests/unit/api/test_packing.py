"""Answers go under gzip to those for whom it is worth it."""

import gzip
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from pubsubflow.api.http.packing import LEAST_BYTES, packed
from pubsubflow.api.http.routing import get

pytestmark = pytest.mark.anyio
LARGE = json.dumps(["row"] * LEAST_BYTES).encode()
BROWSER = {"Accept-Encoding": "gzip, br", "Sec-Fetch-Mode": "cors"}


class Transport:
    """A connection from an address."""

    def __init__(self, host):
        self.host = host

    def get_extra_info(self, name, default=None):
        return (self.host, 4321) if name == "peername" else default


async def sent(body, headers, *, method="GET", host="127.0.0.1", kind="application/json"):
    """Return the encoding and the body of the answer to a request."""

    async def handler(_):
        return web.Response(body=body, content_type=kind)

    request = make_mocked_request(
        method, "/api/v1/runs", headers=headers, transport=Transport(host)
    )
    response = await packed(get("/api/v1/runs", handler)).handler(request)
    return response.headers.get("Content-Encoding"), response.body


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        (BROWSER, "127.0.0.1"),
        ({"Accept-Encoding": "gzip"}, "192.0.2.7"),
        ({"Accept-Encoding": "gzip", "X-Forwarded-For": "192.0.2.7"}, "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("body", [LARGE, LARGE * 20])
async def test_browsers_and_clients_elsewhere_get_less(headers, host, body):
    encoding, packed = await sent(body, headers, host=host)
    assert (encoding, gzip.decompress(packed)) == ("gzip", body)
    assert len(packed) < len(body) / 5


@pytest.mark.parametrize(
    ("body", "more", "headers"),
    [
        (b"[]", {}, BROWSER),
        (LARGE, {"method": "POST"}, BROWSER),
        (LARGE, {"kind": "application/x-ndjson"}, BROWSER),
        (LARGE, {}, {"Accept-Encoding": "br", "Sec-Fetch-Mode": "cors"}),
        (LARGE, {}, {"Accept-Encoding": "gzip"}),  # a program on the same machine
    ],
)
async def test_the_rest_goes_as_it_is(body, more, headers):
    assert await sent(body, headers, **more) == (None, body)
