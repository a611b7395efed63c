"""DAGs for workers that come and go: a quick one, and one that runs until a file appears."""

import time
from pathlib import Path

from pubsubflow import Context, dag, task


@dag(params={"gate": "", "log": ""})
def held():
    @task
    def hold(ctx: Context) -> None:
        with Path(ctx.run.params["log"]).open("a", encoding="utf-8") as file:
            file.write(f"{ctx.attempt}\n")
        while not Path(ctx.run.params["gate"]).exists():
            time.sleep(0.02)

    hold()


@dag
def quick():
    @task
    def say() -> str:
        return "done"

    say()
