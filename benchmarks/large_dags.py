"""Large DAGs: CPU that a result takes of the manager's decisions, when results come one by one.

Counted is what grows with the DAG: its progress is decoded, changed and encoded. Postgres is not.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import figure
from pubsubflow import DAG, task
from pubsubflow.daemon import leave_garbage_alone
from pubsubflow.manager.persistence import large_progress as large
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.runs.progress import STORED_PROGRESS, Progress, finish_task, start_run
from pubsubflow.model.runs.states import TaskState

SIZES = (100, 1_000, 5_000, 10_000)
RESULTS = 100


def _step() -> None:
    """Do nothing."""


def _plan(tasks: int, *, joined: bool) -> Plan:
    with DAG("large") as made:
        steps = [task(task_id=f"t{number}")(_step)() for number in range(tasks)]
        if joined:
            steps >> task(task_id="joins")(_step)()
    return Plan(made.to_spec("large.py", ""))


def _cpu_a_result(plan: Plan) -> float:
    """Return milliseconds of CPU a result."""
    many = len(plan.spec.tasks) >= large.MANY_NODES
    encode: Callable[[Progress], bytes] = large.encode_large if many else STORED_PROGRESS.encode
    decode = large.decode_large if many else STORED_PROGRESS.decode
    stored = encode(start_run(plan)[0])
    since = time.process_time()
    for node in range(RESULTS):
        progress = decode(bytes(bytearray(stored)))  # as it comes from a socket
        finish_task(plan, progress, node, TaskState.SUCCESS)
        stored = encode(progress)
    return 1_000 * (time.process_time() - since) / RESULTS


def run() -> list[dict[str, Any]]:
    """Measure."""
    leave_garbage_alone()
    figures = []
    for size in SIZES:
        for joined in (False, True):
            plan = _plan(size, joined=joined)
            spent = statistics.median(_cpu_a_result(plan) for _ in range(5))
            kind = ", joined by one more" if joined else ""
            name = f"progress of a DAG of {size:,} tasks{kind}, CPU a result"
            figures.append(figure(name, round(spent, 3), "ms", target=0.5))
    return figures
