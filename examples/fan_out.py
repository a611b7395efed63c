"""Fan-out and fan-in: one mapped task per file, found at run time, then one that gathers.

pubsubflow dags trigger count_lines --param folder=/usr/share/doc --param pattern='**/*.txt'
"""

from pathlib import Path
from typing import Any

from pubsubflow import Context, Dataset, dag, task

longest = Dataset("memory://examples/longest-files")


@dag(params={"folder": ".", "pattern": "**/*.py", "limit": 200}, max_active_tasks=8)
def count_lines() -> None:
    """Count the lines of each file of a folder concurrently; return the ten longest files."""

    @task
    def find(ctx: Context) -> list[str]:
        """List the files; their number is the number of `count` tasks."""
        params = ctx.run.params
        files = sorted(path for path in Path(params["folder"]).glob(params["pattern"]))
        return [str(path) for path in files if path.is_file()][: params["limit"]]

    @task(retries=1)
    def count(path: str) -> dict[str, Any]:
        """Count one file's lines; an instance that fails is retried alone."""
        with Path(path).open("rb") as lines:
            return {"path": path, "lines": sum(1 for _ in lines)}

    @task(outlets=[longest])
    def gather(counted: list[dict[str, Any]], ctx: Context) -> list[dict[str, Any]]:
        """Gather all results, in the order of the files."""
        top = sorted(counted, key=lambda file: file["lines"], reverse=True)[:10]
        ctx.emit(longest, extra={"files": len(counted), "lines": sum(f["lines"] for f in counted)})
        return top

    gather(count.expand(path=find()))
