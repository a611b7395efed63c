"""DAGs that are called for their result."""

from pubsubflow import Context, Dataset, dag, task

never = Dataset("s3://calls/never")


@dag(result="double", params={"number": 1})
def doubled():
    @task
    async def double(ctx: Context) -> dict:
        number = ctx.run.params["number"]
        if number == 0:
            raise ValueError("nothing to double")
        if number < 0:
            await ctx.wait_for_event(never)
        return {"doubled": 2 * number}

    double()


@dag(result="squares")
def squared():
    @task
    async def squares(number: int) -> int:
        return number**2

    squares.expand(number=[3, 1, 2])
