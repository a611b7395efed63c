"""Tasks of runs and their logs."""

from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pubsubflow.cli import output
from pubsubflow.cli.commands.runs import show_tasks
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.zone import zone
from pubsubflow.model.api.resources import LogLineView

_LEVELS = {"warning": "yellow", "error": "red", "critical": "bold red"}


async def list_tasks(run: str, /, *, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List the tasks of a run, also those that have not started.

    Args:
        run: Id of the run.
        limit: How many tasks at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.tasks(run, limit=limit)
        if target.json:
            await output.show_items(found)
        else:
            await show_tasks(found)


async def show_logs(
    run: str,
    task: str,
    /,
    *,
    attempt: int | None = None,
    map_index: int | None = None,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    target: Target = DEFAULT,
) -> None:
    """Print the logs of a task; with --json, one JSON object per line.

    Args:
        run: Id of the run.
        task: Id of the task.
        attempt: Number of the attempt, from 1; the latest if left out.
        map_index: Index of the instance of a mapped task, from 0.
        follow: Print new lines as they come, over all attempts, until the task has ended.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.logs(run, task, attempt=attempt, map_index=map_index, follow=follow)
        async for line in found:
            if target.json:
                output.show_line(line)
            else:
                output.show(_line(line))


def _line(line: LogLineView) -> Text:
    """Format a line: the time of day, the text, and the fields of a structured line."""
    time = line.time.astimezone(zone()).strftime("%H:%M:%S.%f")[:-3]
    style = _LEVELS.get(str(line.fields.get("level")), "red" if line.stream == "stderr" else "")
    more = "".join(f" {name}={value}" for name, value in line.fields.items() if name != "level")
    return Text.assemble((time + " ", "dim"), (line.message, style), (more, "dim"))
