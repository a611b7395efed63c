"""DAGs whose outcomes are told."""

import os
import time
from pathlib import Path

from pubsubflow import Fail, Skip, dag, task, variable

# A callback gets the file as its run did.
assert variable("greeting") == "hello"


def say(ctx):
    print(f"{ctx.kind} {ctx.text}")
    ctx.log.info("facts", failed=[each.task_id for each in ctx.failed], attempt=ctx.attempt)


async def reads(ctx):
    print("the password is", ctx.connection("pager").secrets["password"])


def broken(ctx):
    raise ValueError(f"cannot tell, try {ctx.tries}")


def crashes(ctx):
    os.kill(os.getpid(), 9)


def slow(ctx):
    mark, hold = Path(ctx.run.params["mark"]), Path(ctx.run.params["hold"])
    with mark.open("a") as file:
        file.write("begun\n")
    while hold.exists():
        time.sleep(0.05)
    print("through")


@dag(on_failure=[say, broken, crashes], on_success=say)
def told():
    @task(on_failure=[say, reads], on_retry=say, retries=1)
    def fails():
        raise ValueError("no")

    @task(on_skipped=say)
    def skips():
        raise Skip("why")

    @task(on_success=say)
    def works():
        return 1

    fails()
    skips()
    works()


@dag(params={"mark": "", "hold": ""}, on_failure=slow)
def held():
    @task
    def fails():
        raise Fail("no")

    fails()
