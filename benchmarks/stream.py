"""Live stream: how soon changes arrive at one listener and at a thousand, and their cost."""

import asyncio
import resource
import statistics
import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

CLIENTS = 1000
ROUNDS = 15
URI = "bench://stream/changes"
# The default limit is 500 connections; a daemon that is to serve so many listeners raises it.
LIMITS = {"PUBSUBFLOW__API__MAX_CONNECTIONS": f"{2 * CLIENTS}"}


class Client:
    """One connection to the stream: counts messages, and notes when each came."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.came = asyncio.Event()

    async def run(self, stack: AsyncExitStack, url: str, query: str) -> None:
        """Connect; go on reading in the background."""
        server = urlsplit(url)
        reader, writer = await asyncio.open_connection(server.hostname, server.port)
        stack.callback(writer.close)
        request = f"GET /api/v1/stream?{query} HTTP/1.1\r\nHost: {server.netloc}\r\n\r\n"
        writer.write(request.encode())
        await reader.readuntil(b"id: ")  # the first message: no change is missed from here on
        task = asyncio.create_task(self._read(reader))
        stack.callback(task.cancel)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            if b"data: " in data:
                self.moments.append(time.perf_counter())
                self.came.set()

    async def next(self) -> float:
        """Return when the next message came."""
        await self.came.wait()
        self.came.clear()
        return self.moments.pop()


async def _connect(stack: AsyncExitStack, url: str, query: str, count: int) -> list[Client]:
    clients = [Client() for _ in range(count)]
    for start in range(0, count, 100):
        some = clients[start : start + 100]
        await asyncio.gather(*(client.run(stack, url, query) for client in some))
    return clients


async def _rounds(daemon: Stack, clients: list[Client]) -> tuple[list[float], list[float]]:
    """Post events one by one; return from the POST to the first and to the last client, in ms."""
    first, last = [], []
    for _ in range(ROUNDS + 2):
        posted = time.perf_counter()
        await asyncio.to_thread(daemon.emit, URI)
        moments = sorted(await asyncio.gather(*(client.next() for client in clients)))
        first.append((moments[0] - posted) * 1000)
        last.append((moments[-1] - posted) * 1000)
    return first[2:], last[2:]


async def _measure(daemon: Stack) -> list[dict[str, Any]]:
    process = psutil.Process(daemon.process.pid)
    wanted, unwanted = "kind=dataset", "dag=none"
    async with AsyncExitStack() as stack:
        (one,) = await _connect(stack, daemon.url, wanted, 1)
        alone, _ = await _rounds(daemon, [one])
        before = process.memory_full_info().uss
        await _connect(stack, daemon.url, unwanted, CLIENTS)
        memory = (process.memory_full_info().uss - before) / CLIENTS / 1024
        cpu = sum(process.cpu_times()[:2])
        await asyncio.sleep(5)
        idle = (sum(process.cpu_times()[:2]) - cpu) / 5 * 100
        among, _ = await _rounds(daemon, [one])
    async with AsyncExitStack() as stack:
        clients = await _connect(stack, daemon.url, wanted, CLIENTS)
        _, last = await _rounds(daemon, clients)
    return [
        figure("POST → listener, p50", _p50(alone), "ms", target=10, spread=spread(alone)),
        figure(
            f"the same beside {CLIENTS} listeners to other changes",
            _p50(among),
            "ms",
            target=15,
            spread=spread(among),
        ),
        figure(
            f"POST → last of {CLIENTS} listeners, p50",
            _p50(last),
            "ms",
            target=250,
            spread=spread(last),
        ),
        figure("memory a listener", round(memory, 1), "KiB", target=64),
        figure(f"CPU of a daemon with {CLIENTS} idle listeners", round(idle, 1), "%", target=10),
    ]


def _p50(values: list[float]) -> float:
    return round(statistics.median(values), 1)


def run() -> list[dict[str, Any]]:
    """Measure."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the daemon inherits it
    with Stack(environ=LIMITS) as stack:
        return asyncio.run(_measure(stack))
