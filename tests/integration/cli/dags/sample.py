"""What the tests of the command line look at."""

from pubsubflow import Context, Dataset, dag, task

source = Dataset("s3://lake/source")
middle = Dataset("s3://lake/middle")


@dag(schedule=source, params={"times": 2})
def first():
    """Passes news on."""

    @task
    def say(ctx: Context) -> list[int]:
        for number in range(ctx.run.params["times"]):
            print("line", number)
        ctx.log.warning("said.enough", times=ctx.run.params["times"])
        return [1, 2, 3]

    @task
    def each(number: int) -> int:
        return number * 2

    @task(outlets=[middle])
    def pass_on(doubled: list[int], ctx: Context) -> None:
        ctx.emit(middle, extra={"sum": sum(doubled)})

    pass_on(each.expand(number=say()))


@dag(schedule=middle)
def second():
    @task
    def end() -> None: ...

    end()


@dag
def broken():
    @task
    def fail() -> None:
        raise ValueError("no such luck")

    fail()
