"""The smallest pipeline: one DAG produces a dataset, another one waits for it.

    pubsubflow up examples &
    pubsubflow dags trigger roll

`roll` has no schedule and runs when it is triggered. `judge` runs by itself, as soon as the dice
are thrown.
"""

from random import SystemRandom

from pubsubflow import Context, Dataset, dag, task

dice = Dataset("memory://examples/dice")


@dag(params={"dice": 5})
def roll() -> None:
    """Roll some dice and publish what they show."""

    @task(outlets=[dice])
    async def throw(ctx: Context) -> list[int]:
        """Roll the dice; the event is published when the task has succeeded."""
        thrown = [SystemRandom().randint(1, 6) for _ in range(ctx.run.params["dice"])]
        ctx.emit(dice, extra={"thrown": thrown})
        return thrown

    throw()


@dag(schedule=dice)
def judge() -> None:
    """Sum up the dice."""

    @task
    async def add_up(ctx: Context) -> int:
        """Read the event that started this run."""
        thrown = ctx.events[dice][-1].extra["thrown"]
        ctx.log.info("dice.judged", thrown=thrown, total=sum(thrown))
        return sum(thrown)

    add_up()
