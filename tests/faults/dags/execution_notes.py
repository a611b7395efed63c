"""Each execution leaves one line in the file that `FAULT_NOTES` names, to be counted."""

import os
import time

from pubsubflow import Context

NOTES = os.environ["FAULT_NOTES"]
LINE_BYTES = 128


def note(ctx: Context) -> None:
    """Count this execution: one write to the end of the file, whole or not at all."""
    facts = (ctx.run.run_id, ctx.run.dag_id, ctx.task.task_id, ctx.task.map_index, ctx.attempt)
    line = " ".join(map(str, (f"{time.time():.6f}", os.getpid(), *facts)))
    descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line.ljust(LINE_BYTES - 1).encode() + b"\n")
    finally:
        os.close(descriptor)
