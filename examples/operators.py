"""The style of Airflow: `with DAG`, operators, templates, `>>` and trigger rules.

pubsubflow dags trigger archive_logs
"""

from pathlib import Path
from shlex import quote
from tempfile import gettempdir

from pubsubflow import DAG, BashOperator, Context, EmptyOperator, Operator, task


class CheckArchive(Operator):
    """A custom operator: a class with `execute`, and fields rendered with Jinja.

    Args:
        archive: Path of the file to check.
        least_bytes: Least size of a valid archive.
        task_id: Id of the task.
    """

    template_fields = ("archive",)

    def __init__(self, *, task_id: str, archive: str, least_bytes: int = 20) -> None:
        super().__init__(task_id=task_id)
        self.archive = archive
        self.least_bytes = least_bytes

    def execute(self, ctx: Context) -> int:
        """Return the archive's size in bytes."""
        size = Path(self.archive).stat().st_size
        ctx.log.info("archive.checked", archive=self.archive, bytes=size)
        if size < self.least_bytes:
            raise ValueError(f"{self.archive} holds {size} bytes, which is not an archive")
        return size


ARCHIVE = str(Path(gettempdir()) / "logs-{{ ctx.run.run_id }}.tgz")

with DAG("archive_logs", params={"folder": "/var/log"}, tags=["examples"]) as archive_logs:
    start = EmptyOperator(task_id="start")

    pack = BashOperator(
        task_id="pack",
        # Values go in as environment variables: in the command's text they could inject commands.
        env={"FOLDER": "{{ ctx.run.params.folder }}", "ARCHIVE": ARCHIVE},
        bash_command=(
            "set -o pipefail; "
            'find "$FOLDER" -maxdepth 1 -name "*.log" -readable -print0 '
            '| tar --null --files-from=- -czf "$ARCHIVE" && echo "$ARCHIVE"'
        ),
        retries=1,
    )

    check = CheckArchive(task_id="check", archive="{{ ctx.result('pack') }}")

    @task.bash
    def count(archive: str) -> str:
        """Return the command to run; the last line that it prints is the task's result."""
        return f"tar -tzf {quote(archive)} | wc -l"

    clean_up = BashOperator(
        task_id="clean_up",
        env={"ARCHIVE": ARCHIVE},
        bash_command='rm -f "$ARCHIVE"',
        # Also when the check has failed.
        trigger_rule="all_done",
    )

    start >> pack >> [check, count(pack.output)] >> clean_up
