"""Calls: from the POST to the result in the caller's hands."""

import http.client
import json
import time
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

CALLS = 300
_WARM_UP = 20


def _waits(stack: Stack, dag_id: str) -> list[float]:
    """Return the milliseconds of each call, over one connection."""
    connection = http.client.HTTPConnection(stack.url.removeprefix("http://"))
    waits = []
    for _ in range(CALLS):
        started = time.perf_counter()
        connection.request("POST", f"/api/v1/dags/{dag_id}/call", b"{}")
        answer = json.load(connection.getresponse())
        waits.append((time.perf_counter() - started) * 1000)
        assert answer["state"] == "success", answer
    connection.close()
    return waits[_WARM_UP:]


def run() -> list[dict[str, Any]]:
    """Measure."""
    found = []
    with Stack() as stack:
        for kind, target in (("async", 8), ("sync", 12)):
            waits = spread(_waits(stack, f"called_{kind}"))
            name = f"call of a one-task DAG, p50, {kind}"
            found.append(figure(name, waits["p50"], "ms", target=target, spread=waits))
    return found
