"""The operator that runs a command with bash."""

import os
from collections.abc import Mapping
from typing import Any

from pubsubflow.authoring.runtime.bash import run_bash, trace_variables
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.tasks.operators import Operator


class BashOperator(Operator):
    """Runs a command with bash; the last line it prints is the result.

    Args:
        bash_command: The command for `bash -c`, or the name of a file `.sh` beside the DAG file
            that holds it; any exit code but 0 fails the task.
        env: Variables added to those of the worker.
        cwd: Folder to run it in.
    """

    template_fields = ("bash_command", "env", "cwd")
    shell_fields = ("bash_command",)
    template_ext = (".sh", ".bash")

    def __init__(
        self,
        *,
        bash_command: str,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.bash_command = bash_command
        self.env = dict(env) if env else None
        self.cwd = cwd
        super().__init__(**kwargs)

    def execute(self, ctx: Context) -> str:
        """Run the command."""
        return run_bash(
            self.bash_command, {**trace_variables(ctx.trace), **(self.env or {})}, self.cwd
        )
