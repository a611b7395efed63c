"""DAGs that are run for the past, partly, or not at all."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from pubsubflow import Context, Cron, Dataset, dag, partitioned, task

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
clicks = Dataset("s3://shop/clicks")


@dag(
    schedule=Cron("0 2 * * *"), start=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, tags=["past"]
)
def t_books():
    """Closes the books of a day."""

    @task
    def close() -> None:
        pass

    close()


@dag(schedule=partitioned(clicks.within(timedelta(days=1))), tags=["past"])
def t_by_day():
    """Counts the clicks of a day."""

    @task
    def count() -> None:
        pass

    count()


@dag(
    schedule=Cron("0 3 * * *"), start=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, tags=["past"]
)
def t_slowly():
    """Takes an hour a day."""

    @task
    async def nap(ctx: Context) -> None:
        await ctx.sleep(timedelta(hours=1))

    nap()


class Limits(Struct):
    rows: int = 10
    strict: bool = False


class Params(Struct):
    day: date = date(2026, 11, 20)
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    shops: list[Literal["de", "pl", "us"]] = field(default_factory=lambda: ["pl"])
    names: list[str] = []
    limits: Limits = field(default_factory=Limits)
    code: Annotated[str, Meta(pattern="^[A-Z][0-9]$", description="A letter and a digit")] = "A1"
    more: Any = None


@dag(params=Params, presets={"poland": {"shops": ["pl"], "limits": {"rows": 3}}})
def t_rich():
    """Takes params of all kinds."""

    @task
    def work() -> None:
        pass

    work()


@dag(params={"flag": "", "rows": 1})
def t_load():
    """Fails until a file is there."""

    @task
    def prepare() -> int:
        return 1

    @task
    def read(ctx: Context) -> str:
        return Path(ctx.run.params["flag"]).read_text()

    @task
    def store(text: str) -> str:
        return text

    prepare() >> store(read())
