"""Pods: what lies between the start of a run and that of its process, on the test server.

The test server runs a pod as a process, so what a cluster adds is not there: scheduling, images.
What is measured is pubsubflow's own part, from the POST that starts a run to the start of the pod's
process; beside it stands how long that process takes to the task's first line.
"""

import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.figures import figure, spread
from benchmarks.stack import Stack

ROOT = Path(__file__).resolve().parents[1]
DAGS = ROOT / "benchmarks" / "pod_dags"
PODS = 21
REASONS = 7


def _first_line(stack: Stack, cluster: Any) -> tuple[float, float]:
    """Return the milliseconds from the POST to the pod's process, and from there to its task."""
    stack.moments.clear()
    cluster.api.node.started.clear()
    posted = time.time()
    run = stack.trigger("pod")
    ((line, _, _),) = stack.moments.wait(1)
    (started,) = cluster.api.node.started.values()
    assert stack.wait_run(run)["state"] == "success"
    return (started - posted) * 1000, (line - started) * 1000


def _reason(stack: Stack, cluster: Any) -> float:
    """Return the milliseconds from a pod's state to what people read of it."""
    cluster.api.node.refused.clear()
    run = stack.trigger("unpulled")
    while True:
        (found,) = stack.get(f"/runs/{run}/tasks")["items"]
        if "ErrImagePull" in (found["waits_for"] or ""):
            break
        time.sleep(0.01)
    seconds = time.time() - max(cluster.api.node.refused.values())
    stack.post(f"/runs/{run}/cancel", {"reason": "measured"})
    return seconds * 1000


def run() -> list[dict[str, Any]]:
    """Measure."""
    sys.path.append(str(ROOT / "tests"))
    server = import_module("support.kubernetes_thread").KubernetesThread
    with (
        tempfile.TemporaryDirectory(prefix="psf-pods-") as folder,
        server.running(Path(folder)) as cluster,
        Stack(DAGS, environ=cluster.environ) as stack,
    ):
        _first_line(stack, cluster)
        pairs = [_first_line(stack, cluster) for _ in range(PODS)]
        reasons = [_reason(stack, cluster) for _ in range(REASONS)]
    over, process = (spread(values) for values in zip(*pairs, strict=True))
    shown = spread(reasons)
    return [
        figure(
            "POST → process of its pod", over["p50"], "ms", target=150, spread=over, process=process
        ),
        figure("state of a pod → what its task waits for", shown["max"], "ms", target=5000),
    ]
