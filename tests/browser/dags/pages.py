"""DAGs that the tests of the page click through."""

from datetime import timedelta
from pathlib import Path

from pubsubflow import Context, Cron, Dataset, Param, check, dag, task, task_group

orders = Dataset("s3://shop/orders")
customers = Dataset("s3://shop/customers")
totals = Dataset("s3://shop/totals")
returns = Dataset("s3://shop/returns", fresh=timedelta(days=1))


@check(returns)
async def has_rows(event) -> bool:
    """Returns are never empty."""
    return event.extra["rows"] > 0


@dag(schedule=orders & customers.where("event.extra.rows > 0"), tags=["shop"], owner="ann")
def add_up():
    """Adds up the orders of the day by customer."""

    @task
    def fetch(ctx: Context) -> list[int]:
        print("\u001b[32mfetching\u001b[0m orders")
        ctx.log.info("orders.fetched", rows=3)
        return [1, 2, 3]

    @task
    def check(numbers: list[int]) -> list[int]:
        return numbers

    @task
    def part(number: int) -> int:
        return number * 2

    @task(outlets=[totals], retries=2)
    def total(numbers: list[int], parts: list[int]) -> int:
        return sum(numbers) + sum(parts)

    numbers = fetch()
    total(check(numbers), part.expand(number=numbers))


@dag(schedule=totals, tags=["shop"])
def report():
    """Writes the report of the totals."""

    @task
    def write() -> str:
        return "written"

    write()


@dag(
    tags=["shop"],
    params={
        "flag": Param("", type="string", description="File that has to be there"),
        "rows": Param(3, type="integer", minimum=1, maximum=10),
        "mode": Param("fast", enum=["fast", "slow"]),
    },
)
def load():
    """Loads what a person names; fails until the file is there."""

    @task
    def prepare() -> int:
        return 1

    @task
    def read(ctx: Context) -> str:
        params = ctx.run.params
        for number in range(params["rows"]):
            print(f"row {number}")
        if not Path(params["flag"]).is_file():
            raise FileNotFoundError(f"{params['flag']} is not there")
        return "read"

    @task
    def store(text: str) -> str:
        return text

    prepare() >> store(read())


@dag(
    schedule=orders,
    params={"rows": Param(type="integer")},
    params_from={"rows": "event.extra.rows"},
)
def strict():
    """Takes only events that name their rows."""

    @task
    def work() -> None:
        pass

    work()


@dag()
def deploy():
    """Deploys when a person says so."""

    @task
    async def ask(ctx: Context) -> str:
        return (await ctx.approve("Deploy to production?", by="role:operator")).option

    ask()


@dag()
def writes():
    """Writes more than a browser keeps."""

    @task
    def much() -> None:
        for number in range(25_000):
            print(f"row {number}" if number % 10_000 else f"row {number}: a Needle")

    much()


@dag()
def sleeps():
    """Waits for an hour without a slot."""

    @task
    async def nap(ctx: Context) -> None:
        await ctx.sleep(timedelta(hours=1))

    nap()


@dag(schedule=Cron("0 3 * * *", tz="Europe/Warsaw"), tags=["shop", "night"], owner="ben")
def nightly():
    """Cleans up at three in the morning."""

    @task(pool="warehouse")
    def lock() -> int:
        return 1

    @task_group
    def clean(number: int) -> int:
        @task
        def sweep(number: int) -> int:
            return number

        @task
        def polish(number: int) -> int:
            return number

        return polish(sweep(number))

    clean(lock())


@dag(schedule=returns)
def refund():
    """Pays back what came back, once the checks have passed."""

    @task
    def pay() -> None:
        pass

    pay()
