"""DAGs whose tasks have limits, and one that looks for a file."""

from datetime import timedelta
from pathlib import Path

from pubsubflow import Context, Fail, Poked, RateLimit, dag, task, task_group

crm = RateLimit("crm", 1, per=timedelta(seconds=1.5))


@dag(params={"tenant": "acme"}, priority=2)
def limited():
    @task(rate_limit=crm, concurrency_key="{{ params.tenant }}")
    async def call(number: int) -> int:
        return number

    call.expand(number=[1, 2, 3])


@dag
def hourly():
    @task(rate_limit=RateLimit("hourly", 1, per=timedelta(hours=1)))
    async def call(number: int) -> int:
        return number

    call.expand(number=[1, 2])


@dag(params={"path": ""})
def looking():
    @task.sensor(every=0.4, timeout=60)
    def look(ctx: Context):
        path = Path(ctx.run.params["path"])
        return Poked(path.exists(), path.name)

    @task.sensor(every=0.2, timeout=0.5, soft_fail=True)
    async def never():
        return False

    @task(trigger_rule="none_failed")
    def after(name: str, found: None) -> str:
        return name

    after(look(), never())


@dag
def mapped():
    @task
    def extract() -> dict:
        return {"rows": [3, 1, 2], "rates": {"EUR": 1, "USD": 2}}

    @task
    async def pair(found: tuple[int, tuple[str, int]]) -> list:
        number, (currency, rate) = found
        return [number * rate, currency]

    @task
    async def keys(item: tuple[str, object]) -> str:
        return item[0]

    @task
    def gather(pairs: list, names: list) -> list:
        return [pairs, names]

    found = extract()
    doubled = found["rows"].map(lambda number: 2 * number)
    gather(pair.expand(found=doubled.zip(found["rates"])), keys.expand(item=found))


@dag
def grouped():
    @task
    async def rows(ctx: Context) -> list:
        return [1, 2, 3]

    @task(retries=1, map_index_template="row {{ element.number }}")
    async def load(number: int, ctx: Context) -> int:
        await ctx.sleep(timedelta(milliseconds=10))
        if ctx.attempt == 1 and number == 1:
            raise RuntimeError("once more")
        if number == 2:
            raise Fail("not this one")
        return 10 * number

    @task
    async def text(ctx: Context) -> str:
        return str(ctx.element["number"]) * 200_000  # more than an order has room for

    @task(pool="narrow", outlets=["memory://grouped"])
    def store(number: int, loaded: int, extra: int, long: str) -> list:
        return [number, loaded, extra, long[-1]]

    @task(trigger_rule="all_done")
    def gather(stored: list) -> list:
        return stored

    @task_group
    def each(number, extra):
        return store(number, load(number), extra, text())

    gather(each.partial(extra=5).expand(number=rows()))


@dag(tags=["crowd"])
def waiting_group():
    @task
    async def first(number: int, ctx: Context) -> int:
        await ctx.sleep(timedelta(hours=1))
        return number

    @task
    async def second(number: int) -> int:
        return number

    @task_group
    def each(number):
        return second(first(number))

    each.expand(number=[1, 2])
