"""The operator that executes a notebook."""

import sys
from collections.abc import Mapping
from typing import Any

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import PubsubflowError
from pubsubflow.hooks.connection import library


class NotebookFailed(PubsubflowError):  # noqa: N818 - the notebook's end
    """A cell of a notebook raised.

    Args:
        number: Of the cell, as `In [3]` shows it.
        kind: The name of what it raised.
        message: And its text.
    """

    def __init__(self, number: int, kind: str, message: str) -> None:
        super().__init__(f"cell {number} raised {kind}: {message}")
        self.number = number


class PapermillOperator(Operator):
    """Executes a Jupyter notebook with papermill; the result is where the executed one is.

    The output of its cells goes into the task's log. A cell that raises fails the task; the
    executed notebook, with the traceback in it, is at `output_nb` all the same.

    Args:
        input_nb: Path or URL of the notebook.
        output_nb: Where the executed notebook goes.
        parameters: Values for its cell tagged `parameters`.
        kernel_name: In place of the notebook's own.
        cwd: Folder in which it runs.
    """

    template_fields = ("input_nb", "output_nb", "parameters", "kernel_name", "cwd")

    def __init__(
        self,
        *,
        input_nb: str,
        output_nb: str,
        parameters: Mapping[str, Any] | None = None,
        kernel_name: str | None = None,
        cwd: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.input_nb, self.output_nb = input_nb, output_nb
        self.parameters = dict(parameters or {})
        self.kernel_name, self.cwd = kernel_name, cwd
        super().__init__(**kwargs)

    def execute(self, ctx: Context) -> str:
        """Execute the notebook."""
        papermill = library("papermill", "papermill")
        try:
            papermill.execute_notebook(
                self.input_nb,
                self.output_nb,
                parameters=self.parameters,
                kernel_name=self.kernel_name,
                cwd=self.cwd,
                progress_bar=False,
                # Not log_output: papermill's logger is silent unless a program configures it.
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
        except papermill.PapermillExecutionError as error:
            raise NotebookFailed(error.exec_count, error.ename, error.evalue) from error
        for uri in ctx.task.outlets:
            ctx.emit(uri, extra={"notebook": self.output_nb})
        return self.output_nb
