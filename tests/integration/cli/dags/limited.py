"""DAGs whose tasks have limits, and one that looks for a file."""

from datetime import timedelta
from pathlib import Path

from pubsubflow import Context, Poked, RateLimit, dag, task

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
