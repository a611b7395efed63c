"""Lines of a task's output in the form of the API, and those that say why it ended."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from pubsubflow.api.http.responses import encode
from pubsubflow.model.api.resources import NOT_STARTED, LogLineView
from pubsubflow.model.runs.states import RunState
from pubsubflow.store.objects.output import LogChunk, OutputPosition
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.read.task_endings import TaskEnding
from pubsubflow.store.read.tasks import FoundTask, TaskStatus

_LAST_DELIVERY = 999_999_999
_lines = msgspec.json.Decoder(dict[str, Any]).decode_lines


def lines_of(chunk: LogChunk) -> list[LogLineView]:
    """Return the lines of a chunk."""
    return [
        LogLineView(
            attempt=chunk.position.attempt,
            time=datetime.fromtimestamp(record.pop("t"), UTC),
            stream=record.pop("s"),
            message=record.pop("m"),
            fields=record,
        )
        for record in _lines(chunk.text)
    ]


async def ending_of(
    read_models: ReadModels, task: FoundTask, attempt: int | None, *, full: bool
) -> Sequence[LogChunk]:
    """Return why an attempt ended, or never began, as the last chunk of its output.

    Args:
        read_models: What is read.
        task: The instance.
        attempt: Counted from 1; the latest if None.
        full: With the frames of pubsubflow in the traceback.
    """
    ending = await read_models.tasks.ending(task, attempt, full=full)
    if ending is None and await never_starts(
        read_models, task, await read_models.tasks.status(task)
    ):
        run = task.run.view
        text = f"the task did not start: the run has the state {run.state}"
        ending = TaskEnding(0, run.ended_at, [text])
    if ending is None:
        return ()
    at = (ending.at or datetime.now(UTC)).timestamp()
    records = ({"t": at, "s": "error", "m": line} for line in ending.lines)
    text = "".join(f"{encode(record).decode()}\n" for record in records)
    # Behind all deliveries, so that a client that resumes after it gets it once.
    return (LogChunk(OutputPosition(ending.attempt, _LAST_DELIVERY, 0), text),)


async def never_starts(read_models: ReadModels, task: FoundTask, status: TaskStatus) -> bool:
    """Whether a task has not started although its run has ended."""
    if status.state != NOT_STARTED:
        return False
    run = await read_models.runs.brief(UUID(task.run.view.run_id))
    return RunState(run.view.state).final
