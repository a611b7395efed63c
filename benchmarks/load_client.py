"""Load client in a process of its own: posts prebuilt requests over plain sockets.

`closed`: every connection posts again as soon as it is answered. `open`: requests leave at a
constant rate whatever the answers do, and a request's latency counts from the moment at which it
was due, so that a server that stalls cannot hide it (coordinated omission).

Order as JSON in the first argument, figures as JSON on stdout.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque

import msgspec
import uvloop


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests to send, and for how long.

    Attributes:
        path, body, headers: Of every request.
        connections: Opened at the start and kept.
        seconds: How long requests are sent.
        rate: Requests a second; None to send as fast as they are answered.
        warm_seconds: How long before that the same is done without counting.
    """

    host: str
    port: int
    path: str
    body: str
    connections: int
    seconds: float
    headers: dict[str, str] = {}
    rate: float | None = None
    warm_seconds: float = 0.5

    def request(self) -> bytes:
        """Return the bytes of a request."""
        body = self.body.encode()
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One connection; posts one request after the other."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._answer = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a first request."""
        self._transport = transport
        self._load.free(self)

    def post(self, due: float) -> None:
        """Send a request that was due at that moment."""
        self.due = due
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        """Take in a piece of an answer."""
        self._answer += data
        head, found, rest = self._answer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(rest) < length:
            return
        self._answer = rest[length:]
        self._load.answered(self, int(head.split(None, 2)[1]))

    def connection_lost(self, _: Exception | None) -> None:
        """Count the lost connection."""
        self._load.lost += 1


class Load:
    """Requests in progress, and figures of those that were answered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.request = order.request()
        self.lost = 0
        self._idle: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._latencies: list[float] = []
        self._statuses: Counter[int] = Counter()
        self._until = 0.0
        self._from = 0.0

    def free(self, connection: Connection) -> None:
        """Give a connection its next request."""
        now = time.perf_counter()
        if self._order.rate is None and self._from:
            if now < self._until:
                connection.post(now)
        elif self._due:
            connection.post(self._due.popleft())
        else:
            self._idle.append(connection)

    def answered(self, connection: Connection, status: int) -> None:
        """Count an answer."""
        if self._from <= connection.due:
            self._latencies.append(time.perf_counter() - connection.due)
            self._statuses[status] += 1
        self.free(connection)

    async def run(self) -> dict[str, object]:
        """Send for as long as ordered; return the figures."""
        order = self._order
        loop = asyncio.get_running_loop()
        for _ in range(order.connections):
            await loop.create_connection(lambda: Connection(self), order.host, order.port)
        began = time.perf_counter()
        self._from = began + order.warm_seconds
        self._until = self._from + order.seconds
        if order.rate is None:
            waiting, self._idle = self._idle, deque()
            for connection in waiting:
                self.free(connection)
            await asyncio.sleep(self._until - began)
        else:
            await self._at_constant_rate(began, order.rate)
        taken = min(time.perf_counter(), self._until + 5) - self._from
        return self._figures(order.seconds if order.rate is None else taken)

    async def _at_constant_rate(self, began: float, rate: float) -> None:
        count = int((self._until - began) * rate)
        for number in range(count):
            due = began + number / rate
            early = due - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            if self._idle:
                self._idle.popleft().post(due)
            else:
                self._due.append(due)
        give_up = time.perf_counter() + 30
        while len(self._idle) + self.lost < self._order.connections:
            if time.perf_counter() > give_up:
                break
            await asyncio.sleep(0.01)

    def _figures(self, seconds: float) -> dict[str, object]:
        ordered = sorted(self._latencies)
        quantiles = {}
        if ordered:
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
                index = min(len(ordered) - 1, int(len(ordered) * share))
                quantiles[name] = round(ordered[index] * 1000, 2)
        return {
            "rate": round(len(ordered) / seconds, 1),
            "statuses": {str(status): count for status, count in self._statuses.items()},
            "lost": self.lost,
            "unanswered": len(self._due),
            "latency_ms": quantiles,
        }


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    print(json.dumps(uvloop.run(Load(order).run())))


if __name__ == "__main__":
    main()
