"""DAGs whose tasks ask people."""

from datetime import timedelta

import msgspec

from pubsubflow import ApprovalRequest, Context, Escalate, dag, task


class Rollout(msgspec.Struct):
    """What goes with the approval of a deployment."""

    percent: int
    note: str = ""


@dag(result="deploy", params={"by": ["role:operator"], "quorum": 1, "seconds": 600.0})
def deploying():
    @task
    async def deploy(ctx: Context) -> dict:
        params = ctx.run.params
        answer = await ctx.approve(
            "Deploy to production?",
            form=Rollout,
            by=params["by"],
            quorum=params["quorum"],
            details="build 7 <b>",
            timeout=params["seconds"],
        )
        return {
            "option": answer.option,
            "percent": answer.values.percent,
            "people": list(answer.people),
        }

    deploy()


@dag(result="ask")
def escalating():
    @task
    async def ask(ctx: Context) -> dict:
        async def tell(request: ApprovalRequest) -> None:
            print(f"told {request.escalated}")

        answer = await ctx.approve(
            "Delete it?",
            options=("yes", "no"),
            by=("user:nobody",),
            escalate=Escalate(after=timedelta(seconds=0.2), by=("role:admin",)),
            notify=tell,
        )
        return {"option": answer.option}

    ask()


@dag(result="ask")
def defaulting():
    @task
    async def ask(ctx: Context) -> dict:
        answer = await ctx.approve("Go on?", timeout=0.1, default="reject")
        return {"option": answer.option, "people": list(answer.people)}

    ask()
