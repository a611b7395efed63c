"""Commands about tasks."""

from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from pubsubflow.cli import output
from pubsubflow.cli.runs import show_tasks
from pubsubflow.cli.target import Asking
from pubsubflow.model.api.resources import LogLine

_DEFAULT = Asking()
_LEVELS = {"warning": "yellow", "error": "red", "critical": "bold red"}


async def list_tasks(run: str, /, *, limit: int | None = None, asking: Asking = _DEFAULT) -> None:
    """List the tasks of a run, also those not started yet.

    Args:
        run: Id of the run.
        limit: How many at most; all if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.tasks(run, limit=limit)
        if asking.json:
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
    asking: Asking = _DEFAULT,
) -> None:
    """Print the output of a task.

    With --json, one JSON object a line.

    Args:
        run: Id of the run.
        task: Id of the task.
        attempt: Which attempt, from 1; the latest if left out.
        map_index: Which instance of a mapped task, from 0.
        follow: Go on until the task has ended, through further attempts too.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.logs(run, task, attempt=attempt, map_index=map_index, follow=follow)
        async for line in found:
            if asking.json:
                output.show_line(line)
            else:
                output.show(_line(line))


def _line(line: LogLine) -> Text:
    """Lay out a line: the time of day, the text, and what a log line says besides."""
    time = line.time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    style = _LEVELS.get(str(line.fields.get("level")), "red" if line.stream == "stderr" else "")
    more = "".join(f" {name}={value}" for name, value in line.fields.items() if name != "level")
    return Text.assemble((time + " ", "dim"), (line.message, style), (more, "dim"))
