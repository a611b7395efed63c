"""Hostile requests, generated from the declared routes and from signed requests."""

import inspect
import json
import socket
import time
from dataclasses import dataclass
from unittest.mock import Mock

from hypothesis import strategies as st

from pubsubflow.api import Api, ApiSettings
from support.signers import SCHEMES, TIMED

PATIENCE_SECONDS = 30
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SKEW_SECONDS = 10_000


def declared_routes():
    """Return method and path of all that is served, also of what is added later."""
    given = {"settings": ApiSettings()}
    for name, each in inspect.signature(Api).parameters.items():
        if each.default is inspect.Parameter.empty and name not in given:
            given[name] = Mock()
    api = Api(**given)
    return sorted((each.method, each.path) for part in api._parts for each in part.routes())


_WORDS = ("*", "..", "%00", "%2e%2e%2f", "a", "0", "-1", "null", "NaN", "%ff%fe", "'", "true")
_NAMES = (
    *("dataset", "extra", "partition", "time", "id", "params", "since", "until", "paused", "a"),
    *("logical_time", "dag_id", "payload", "name", "role", "specversion", "subject", "source"),
    *("type", "data"),
)


@dataclass(frozen=True)
class RawRequest:
    """A request as bytes.

    Attributes:
        whole: Whether it must be answered; what is cut off or no HTTP may just be dropped.
    """

    data: bytes
    whole: bool = True


# Text that is hard to parse, valid values among it.
TEXTS = st.one_of(
    st.sampled_from(
        [
            *_WORDS,
            *("", "9" * 30, "x" * 2000, "00000000-0000-0000-0000-000000000000"),
        ]
    ),
    st.text(st.characters(codec="ascii", exclude_characters=" \r\n\0#?"), max_size=20),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**62, max_value=2**70),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["s3://lake/a", "not a uri", "\0", "2026-01-01T00:00:00Z", "9999-12-31"]),
)
NAMES = st.sampled_from(_NAMES)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
DEEP = st.builds(
    lambda left, depth: left * depth,
    st.sampled_from([b"[", b'{"a":', b'[{"extra":', b'{"extra":{"a":']),
    st.integers(1, 20_000),
)
JSON = st.builds(lambda value: json.dumps(value).encode(), VALUES)
BODIES = st.one_of(JSON, JSON, JSON, DEEP, st.binary(max_size=200), st.just(b"\xff\xfe{}"))
HEADERS = st.one_of(
    st.tuples(
        st.sampled_from(
            b"Content-Type Authorization Origin Host If-Match Last-Event-ID Idempotency-Key Expect"
            b" Range Content-Encoding Cookie Accept ce-specversion ce-id ce-subject ce-time"
            b" X-Hub-Signature-256 Webhook-Id Connection traceparent".split()
        ),
        st.one_of(
            st.sampled_from(
                b"application/json application/cloudevents+json application/cloudevents-batch+json"
                b" 100-continue gzip 1.0 * multipart/x s3://lake/a".split()
            ),
            st.binary(max_size=20).map(lambda raw: raw.translate(None, b"\r\n\0")),
        ),
    ),
    st.tuples(st.just(b"X-Any"), st.integers(1, 9000).map(lambda size: b"x" * size)),
)
BROKEN_FRAMES = [
    (b"Content-Length: 100\r\n", b"{}"),
    (b"Content-Length: -1\r\n", b"{}"),
    (b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{}"),
    (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\n", b"ZZ\r\n{}\r\n"),
    (b"Transfer-Encoding: chunked\r\n", b"5\r\n{}"),
    (b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffffff\r\n{}"),
    (b"Transfer-Encoding: gzip\r\n", b"\x1f\x8b"),
    (b"Broken\r\n", b""),
    (b": nothing\r\n", b""),
]


@st.composite
def requests(draw, routes):
    """Return a request for a declared route, or for nothing, framed well or not."""
    method, path = draw(st.sampled_from(routes))
    method = draw(st.sampled_from([method, method, method, method, "HEAD", "BREW", "OPTIONS"]))
    while "{" in path:
        before, _, rest = path.partition("{")
        value = draw(st.sampled_from(sorted(SCHEMES))) if "/hooks/" in before else draw(TEXTS)
        path = before + value + rest.partition("}")[2]
    if draw(st.booleans()):
        pairs = draw(st.lists(st.tuples(NAMES | st.just("limit") | TEXTS, TEXTS), max_size=3))
        path += "?" + "&".join(f"{name}={value}" for name, value in pairs)
    head = f"{method} {path} HTTP/1.1\r\n".encode("latin-1", "replace")
    lines = dict(draw(st.lists(HEADERS, max_size=3)))
    lines.setdefault(b"Host", b"localhost")
    head += b"".join(name + b": " + value + b"\r\n" for name, value in lines.items())
    if draw(st.integers(0, 5)) == 0:
        frame, body = draw(st.sampled_from(BROKEN_FRAMES))
        return RawRequest(head + frame + b"\r\n" + body, whole=False)
    body = draw(BODIES) if method in ("POST", "PATCH", "PUT", "DELETE") else b""
    # Bytes in a head may be such that there is no request, and `close` leaves nothing to read.
    return RawRequest(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def signed(name, body, *, at=None, secret=None):
    """Return headers with which a scheme's webhook believes a body, unless they are of another."""
    _, own, signer, _ = SCHEMES[name]
    more = {} if name == "ed25519" else {"secret": secret or own}
    if name in TIMED:
        more["at"] = int(time.time()) if at is None else at
    return [(key.encode(), value) for key, value in signer(body, **more).headers]


def posted(name, headers, body):
    """Return a request to a webhook."""
    lines = b"".join(key + b": " + value + b"\r\n" for key, value in headers)
    head = f"POST /hooks/{name} HTTP/1.1\r\nHost: localhost\r\n".encode()
    return RawRequest(head + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body)


@st.composite
def forgeries(draw):
    """Return a request to a webhook that is nearly right."""
    name = draw(st.sampled_from(sorted(SCHEMES)))
    body = json.dumps(draw(VALUES)).encode()
    ways = ["drop", "cut", "another"]
    if SCHEMES[name][3]:
        ways.append("body")
    if name in TIMED:
        ways.append("time")
    if name == "ed25519":
        ways.remove("another")
    way = draw(st.sampled_from(ways))
    if way == "another":
        secret = SCHEMES[name][1]
        other = secret[:-2] + ("A=" if secret.endswith("=") else "xx")
        return posted(name, signed(name, body, secret=other), body)
    if way == "time":
        at = int(time.time()) + draw(st.sampled_from([-SKEW_SECONDS, SKEW_SECONDS]))
        return posted(name, signed(name, body, at=at), body)
    headers = signed(name, body)
    if way == "body":
        return posted(name, headers, body + b" ")
    if way == "cut":
        return posted(name, [(key, value[: len(value) // 2]) for key, value in headers], body)
    headers.pop(draw(st.integers(0, len(headers) - 1)))
    return posted(name, headers, body)


def send(address, sent):
    """Send a request; return the status of its answer, or None for none."""
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as client:
        try:
            client.sendall(sent.data)
            if not sent.whole:
                client.shutdown(socket.SHUT_WR)
            data = b""
            while b"\r\n\r\n" not in data:
                piece = client.recv(65536)
                if not piece:
                    break
                data += piece
                if data.startswith(CONTINUE):
                    data = data.removeprefix(CONTINUE)
        except ConnectionError:
            return None
    return int(data.split()[1]) if data else None
