"""Load of events over HTTP: how many are durable a second, how late, and how fairly.

The client is a process of its own (`load_client.py`). Postgres keeps its defaults: fsync is on, and
an answer comes after the commit.
"""

import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

REPETITIONS = 5
EVENTS = "/api/v1/datasets/events"
EVENT = {"dataset": "bench://unsubscribed"}
FLOOD_CONNECTIONS = 300
SECRET = b"benchmark"


def _client(url: str, **order: Any) -> subprocess.Popen[str]:
    parts = urlsplit(url)
    order = {"host": parts.hostname, "port": parts.port, "path": EVENTS, **order}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load_client", json.dumps(order)],
        stdout=subprocess.PIPE,
        text=True,
    )


def _figures(client: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = client.communicate(timeout=120)
    assert client.returncode == 0, "the load client failed"
    return json.loads(output)


def _load(stack: Stack, **order: Any) -> dict[str, Any]:
    """Return a client's figures; all of its requests must have been accepted."""
    found = _figures(_client(stack.url, **order))
    assert set(found["statuses"]) == {"202"}, found
    assert not found["lost"] + found["unanswered"], found
    return found


def _closed(stack: Stack, name: str, *, size: int, connections: int, target: float) -> Any:
    body = json.dumps([EVENT] * size if size > 1 else EVENT)
    rates, busy = [], []
    for _ in range(REPETITIONS):
        before = stack.cpu_seconds()
        found = _load(stack, body=body, connections=connections, seconds=3, warm_seconds=1)
        busy.append((stack.cpu_seconds() - before) / 4)
        rates.append(found["rate"] * size)
    return figure(
        name,
        round(statistics.median(rates)),
        "1/s",
        target=target,
        more=True,
        spread=spread(rates, 0),
        cores_busy=round(statistics.median(busy), 2),
        load=os.getloadavg()[0],
    )


def _open(stack: Stack, *, rate: float, target: float) -> Any:
    runs = [
        _load(stack, body=json.dumps(EVENT), connections=64, seconds=5, rate=rate, warm_seconds=1)
        for _ in range(REPETITIONS)
    ]
    late = [run["latency_ms"]["p99"] for run in runs]
    return figure(
        f"p99 of an event at {rate:g} a second",
        round(statistics.median(late), 1),
        "ms",
        target=target,
        spread=spread(late),
        p50=statistics.median(run["latency_ms"]["p50"] for run in runs),
        load=os.getloadavg()[0],
    )


def _hook(name: str) -> dict[str, Any]:
    body = json.dumps({"n": 1})
    digest = hmac.new(SECRET, body.encode(), hashlib.sha256).hexdigest()
    return {
        "path": f"/hooks/{name}",
        "body": body,
        "headers": {"X-Hub-Signature-256": f"sha256={digest}"},
    }


def _fair(stack: Stack) -> list[Any]:
    """Return how late a quiet webhook's events are, alone and beside a flood of another one."""
    quiet = {**_hook("quiet"), "connections": 8, "seconds": 5, "rate": 20}
    alone, beside, floods = [], [], []
    for _ in range(REPETITIONS):
        alone.append(_load(stack, **quiet)["latency_ms"]["p99"])
        order = {**_hook("flooded"), "connections": FLOOD_CONNECTIONS, "seconds": 7}
        flood = _client(stack.url, **order)
        beside.append(_load(stack, **quiet)["latency_ms"]["p99"])
        floods.append(_figures(flood))
    return [
        figure(
            f"p99 of a quiet webhook, {text}",
            round(statistics.median(values), 1),
            "ms",
            target=target,
            spread=spread(values),
            load=os.getloadavg()[0],
            **facts,
        )
        for text, values, target, facts in (
            ("alone", alone, 60, {}),
            (f"beside {FLOOD_CONNECTIONS} that flood another", beside, 250, {"flood": floods[-1]}),
        )
    ]


def run() -> list[dict[str, Any]]:
    """Measure."""
    with Stack() as stack:
        return [
            _closed(stack, "events a second, batches of 100", size=100, connections=4, target=5000),
            _closed(stack, "posts a second, 1 connection", size=1, connections=1, target=1200),
            _closed(stack, "posts a second, 32 connections", size=1, connections=32, target=5000),
            _open(stack, rate=500, target=60),
            *_fair(stack),
        ]
