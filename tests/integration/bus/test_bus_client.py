"""The frame parser, however the bytes are split."""

import pytest

from pubsubflow.bus.client import FrameParser, NatsClient
from pubsubflow.bus.protocol import decode_headers, encode_headers, encode_pub
from pubsubflow.errors import BusUnavailable

pytestmark = pytest.mark.anyio

BLOCK = encode_headers({"a": "1", "b": "x: y"})
STREAM = (
    b"PING\r\n"
    b"MSG psf.a 1 5\r\nhe\r\nl\r\n"
    b"+OK\r\n"
    b"MSG psf.b 1 reply.to 0\r\n\r\n"
    b"MSG psf.unknown 77 3\r\nabc\r\n"
    b"HMSG psf.c 1 %d %d\r\n%bbody\r\n"
    b"HMSG psf.d 1 reply.to %d %d\r\n%b\r\n"
    b"PONG\r\n-ERR 'Permissions Violation'\r\n"
    b"MSG psf.e 1 2\r\n\r\n\r\n"
) % (len(BLOCK), len(BLOCK) + 4, BLOCK, len(BLOCK), len(BLOCK), BLOCK)
EXPECTED = [
    (b"psf.a", b"", b"he\r\nl", b""),
    (b"psf.b", b"reply.to", b"", b""),
    (b"psf.c", b"", b"body", BLOCK),
    (b"psf.d", b"reply.to", b"", BLOCK),
    (b"psf.e", b"", b"\r\n", b""),
]


@pytest.fixture
async def client():
    return NatsClient(buffer_bytes=1_000)


async def parsed(client, chunks):
    got = []
    client.handlers[b"1"] = lambda *message: got.append(message)
    parser = FrameParser(client)
    for chunk in chunks:
        await parser.parse(chunk)
    return got


async def test_any_cut_gives_the_same_messages(client):
    for cut in range(len(STREAM) + 1):
        assert await parsed(client, [STREAM[:cut], STREAM[cut:]]) == EXPECTED
        client._pending.clear()
        client._pending_data_size = 0


async def test_byte_by_byte_gives_the_same_messages(client):
    assert await parsed(client, [bytes([byte]) for byte in STREAM]) == EXPECTED


async def test_nonsense_ends_the_connection(client):
    from nats.errors import ProtocolError  # noqa: PLC0415 - only this test names the driver

    for nonsense in (b"WHAT\r\n", b"MSG a 1 x\r\n"):
        with pytest.raises(ProtocolError):
            await parsed(client, [nonsense])


async def test_what_waits_is_bounded(client):
    client.send(bytes(1_001))
    with pytest.raises(BusUnavailable):
        client.send(b"")


async def test_headers_survive_the_round_trip():
    headers = {"Nats-Msg-Id": "1", "Colour": "żółty", "Empty": ""}
    assert decode_headers(encode_headers(headers)) == headers
    assert encode_pub("s", "", b"x") == b"PUB s  1\r\nx\r\n"
