"""Tasks of runs and their logs."""

from collections.abc import AsyncIterable
from pathlib import Path
from typing import Annotated

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.commands.runs import show_callbacks, show_tasks
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.task_choice import EVERY_TASK, TaskChoice
from pubsubflow.cli.texts import Grid, Text
from pubsubflow.cli.zone import zone
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.resources import LogLineView, TaskDetail, TaskView
from pubsubflow.model.wire.task_resources import format_memory

_LISTED_TASKS = 50
_LEVELS = {"warning": "yellow", "error": "red", "critical": "bold red"}


async def list_tasks(
    run: str | None = None,
    /,
    *,
    choice: TaskChoice = EVERY_TASK,
    map_index: int | None = None,
    limit: Limit | None = None,
    target: Target = DEFAULT,
) -> None:
    """List the tasks of a run, also those that have not started, or tasks of many runs by filters.

    Args:
        run: Id of the run; of it --state none lists what has not started. Without a run the tasks
            of the newest ones come first.
        choice: Which tasks.
        map_index: Of a run: only instances with this index of mapped tasks and groups, from 0.
        limit: How many tasks at most; of a run all if left out, else 50.
        target: The daemon, and the format of the output.
    """
    if run is not None and not (choice.empty or choice.only_states):
        raise ConfigError("name one run, or choose tasks of many by filters; not both")
    async with target.client() as client:
        if run is not None:
            found = client.tasks(run, states=choice.state, map_index=map_index, limit=limit)
        elif map_index is not None:
            raise ConfigError("--map-index is for the tasks of one run")
        else:
            found = client.tasks_of_runs(limit=limit or _LISTED_TASKS, **choice.arguments())
        if target.json:
            await output.show_items(found)
        elif run is not None:
            await show_tasks(found)
        else:
            await _show_tasks_of_runs(found)


async def _show_tasks_of_runs(tasks: AsyncIterable[TaskView]) -> None:
    listing = output.Listing(
        *("run", "DAG", "task", "state", "attempt", "ended", "took", "error"),
        narrow=4,
        right=["attempt", "took"],
        elastic=["error"],
        times=["ended"],
    )
    async for task in tasks:
        index = "" if task.map_index is None else f".{task.map_index}"
        listing.row(
            task.run_id,
            task.dag_id,
            task.task_id + index,
            output.state(task.state),
            str(task.attempt or ""),
            output.brief(task.ended_at),
            output.duration(task.started_at, task.ended_at),
            task.waits_for if task.error is None else f"{task.error.type}: {task.error.message}",
        )
    listing.show(none="no tasks")


async def show_task(
    run: str,
    task: str,
    /,
    *,
    map_index: int | None = None,
    target: Target = DEFAULT,
) -> None:
    """Show a task: its state, its result, its error and its attempts.

    Args:
        run: Id of the run.
        task: Id of the task.
        map_index: Index of the instance of a mapped task, from 0.
        target: The daemon, and the format of the output.
    """
    name = task if map_index is None else f"{task}.{map_index}"
    async with target.client() as client:
        found = await client.task(run, name)
        if target.json:
            output.show_json(found)
            return
        # What keeps a task from starting is told by the tasks before it: the log ends with that.
        ending = [line async for line in client.logs(run, name) if line.stream == "error"]
    output.show(_facts(found))
    if found.attempts:
        output.show("")
        _show_attempts(found)
    show_callbacks(found.callbacks)
    if ending:
        output.show("", *(Text(line.message, "red") for line in ending))


async def print_result(
    run: str,
    task: str,
    /,
    *,
    map_index: int | None = None,
    output_file: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    target: Target = DEFAULT,
) -> None:
    """Print what a task returned, as JSON, whatever its size.

    Args:
        run: Id of the run.
        task: Id of the task.
        map_index: Index of the instance of a mapped task, from 0.
        output_file: Write it into this file.
        target: The daemon, and the format of the output.
    """
    name = task if map_index is None else f"{task}.{map_index}"
    async with target.client() as client:
        found = await client.task_result(run, name)
    if output_file is None:
        output.show_json(found)
        return
    data = msgspec.json.encode(found)
    try:
        output_file.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{output_file} cannot be written: {error.strerror}") from error
    output.show(f"{len(data):,} bytes written to {output_file}")


def _facts(task: TaskDetail) -> Grid:
    size = f"{task.result_bytes:,} bytes, not shown" if task.result_bytes else None
    if task.result_stored and task.result is None:
        size = f"{task.result_bytes:,} bytes in the result store: see tasks result"
    elif task.result_keeper:
        size = f"{task.result_bytes:,} bytes in {task.result_keeper} while the run lasts"
    if task.result_pruned:
        size = "pruned"
    return output.facts(
        [
            ("task", task.id),
            ("name", task.map_name),
            ("DAG", task.dag_id),
            ("operator", task.operator),
            ("state", output.state(task.state)),
            ("attempt", str(task.attempt or "")),
            ("worker", task.worker),
            ("waits for", task.waits_for),
            ("queued", output.moment(task.queued_at)),
            ("started", output.moment(task.started_at)),
            ("took", output.duration(task.started_at, task.ended_at)),
            ("peak memory", _peak(task.peak_memory)),
            ("result", size if task.result is None else msgspec.json.encode(task.result).decode()),
            *(
                (f"result {key!r}", msgspec.json.encode(value).decode())
                for key, value in task.results.items()
            ),
            *((f"rendered {field}", text) for field, text in task.rendered.items()),
        ]
    )


def _peak(count: int | None) -> str | None:
    return None if count is None else format_memory(count)


def _show_attempts(task: TaskDetail) -> None:
    listing = output.Listing(
        *("attempt", "state", "took", "peak memory", "worker", "error"),
        narrow=4,
        right=["peak memory"],
        elastic=["worker", "error"],
    )
    for each in task.attempts:
        listing.row(
            str(each.attempt),
            output.state(each.state),
            output.duration(each.started_at, each.ended_at),
            _peak(each.peak_memory),
            each.worker,
            None if each.error is None else f"{each.error.type}: {each.error.message}",
        )
    listing.show(none="no earlier attempts")


async def show_logs(
    run: str,
    task: str,
    /,
    *,
    attempt: int | None = None,
    map_index: int | None = None,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    full: bool = False,
    last: int | None = None,
    target: Target = DEFAULT,
) -> None:
    """Print the logs of a task and why it ended; with --json, one JSON object per line.

    Args:
        run: Id of the run.
        task: Id of the task.
        attempt: Number of the attempt, from 1; the latest if left out.
        map_index: Index of the instance of a mapped task, from 0.
        follow: Print new lines as they come, over all attempts, until the task has ended.
        full: Print the traceback with the frames of pubsubflow.
        last: Print only the last lines, so many, at most 2,000.
        target: The daemon, and the format of the output.
    """
    if last is not None and (follow or full):
        raise ConfigError("--last goes neither with --follow nor with --full")
    async with target.client() as client:
        if last is not None:
            part = await client.output_lines(
                run, task, attempt=attempt, map_index=map_index, last=last
            )
            for line in part.items:
                _show_line(line, target)
            return
        found = client.logs(
            run, task, attempt=attempt, map_index=map_index, follow=follow, full=full
        )
        async for line in found:
            _show_line(line, target)


def _show_line(line: LogLineView, target: Target) -> None:
    if target.json:
        output.show_line(line)
    else:
        output.show(_line(line))


def _line(line: LogLineView) -> Text:
    """Format a line: the time of day, the text, and the fields of a structured line."""
    time = line.time.astimezone(zone()).strftime("%H:%M:%S.%f")[:-3]
    red = "red" if line.stream in ("stderr", "error") else ""
    style = _LEVELS.get(str(line.fields.get("level")), red)
    more = "".join(f" {name}={value}" for name, value in line.fields.items() if name != "level")
    return Text.assemble((time + " ", "dim"), (line.message, style), (more, "dim"))
