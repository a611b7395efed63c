"""The operator that runs a command with bash."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pubsubflow.authoring.runtime.bash import CommandFailed, run_bash, trace_variables
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import TaskSkipped

_SKIPPED = 99


class BashOperator(Operator):
    """Runs a command with bash; the last line it prints is the result.

    Args:
        bash_command: The command for `bash -c`, or the name of a file `.sh` beside the DAG file
            that holds it; any exit code but 0 fails the task.
        env: Variables added to those of the worker.
        append_env: Whether it has those of the worker at all.
        cwd: Folder to run it in.
        skip_on_exit_code: Exit codes that skip the task.
        output_processor: Gets the last line; its value is the result.
    """

    template_fields = ("bash_command", "env", "cwd")
    shell_fields = ("bash_command",)
    template_ext = (".sh", ".bash")

    def __init__(
        self,
        *,
        bash_command: str,
        env: Mapping[str, str] | None = None,
        append_env: bool = True,
        cwd: str | os.PathLike[str] | None = None,
        skip_on_exit_code: int | Collection[int] | None = _SKIPPED,
        output_processor: Callable[[str], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.bash_command = bash_command
        self.env = dict(env) if env else None
        self.append_env = append_env
        self.cwd = cwd
        codes = skip_on_exit_code
        self.skip_on_exit_code = (codes,) if isinstance(codes, int) else tuple(codes or ())
        self.output_processor = output_processor
        super().__init__(**kwargs)

    def execute(self, ctx: Context) -> Any:
        """Run the command."""
        env = {**trace_variables(ctx.trace), **(self.env or {})}
        try:
            last = run_bash(self.bash_command, env, self.cwd, inherit=self.append_env)
        except CommandFailed as error:
            if error.code in self.skip_on_exit_code:
                raise TaskSkipped(f"the command ended with exit code {error.code}") from None
            raise
        return last if self.output_processor is None else self.output_processor(last)
