"""Runs that end when a test lets them."""

from pathlib import Path

from pubsubflow import Context, dag, task


@dag(params={"gate": ""})
def gated():
    @task
    def end(ctx: Context) -> None:
        """Read how to end from a named pipe."""
        if Path(ctx.run.params["gate"]).read_text(encoding="utf-8") == "fail":
            raise ValueError("asked to fail")

    end()
