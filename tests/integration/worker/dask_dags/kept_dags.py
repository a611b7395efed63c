"""A DAG whose large result stays in Dask."""

import os

import anyio

from pubsubflow import dag, task
from pubsubflow.dask import Dask

SIZE = 3_000_000


@dag(executor=Dask(result="dask"))
def kept():
    @task(executor=Dask(workers=["d0"], result="dask"))
    async def make() -> str:
        return "x" * SIZE

    @task(executor="local")
    async def gate() -> None:
        while not await anyio.Path(os.environ["TEST_GATE"]).exists():  # noqa: ASYNC110
            await anyio.sleep(0.05)

    @task(executor=Dask(workers=["d1"], result="dask"))
    def measure(text: str, _: None) -> int:
        return len(text)

    measure(make(), gate())
