"""Results that are too large for a message, passed on in every way there is."""

from pubsubflow import Context, dag, task

SIZE = 400_000


@dag
def large():
    @task
    async def numbers() -> list[int]:
        return list(range(1_000_000, 1_000_000 + SIZE))

    @task
    async def total(found: list[int]) -> int:
        return sum(found)

    @task
    def texts(ctx: Context, found: list[int]) -> list[str]:
        ctx.push("copy", "z" * 1_500_000)
        ctx.push("count", 7)
        return [str(len(found)), "x" * 700_000]

    @task
    def measure(text: str) -> str:
        return text[:1] * (600_000 if len(text) > 9 else 3)

    @task
    def gather(ctx: Context, parts: list[str], more: int) -> dict[str, int]:
        numbers = ctx.result("numbers")
        print("gathered", len(parts))
        pushed = len(ctx.pull("texts", "copy")) + ctx.pull("texts", "count")
        found = {"parts": sum(map(len, parts)), "more": more, "last": numbers[-1]}
        return {**found, "pushed": pushed}

    found = numbers()
    gather(measure.expand(text=texts(found)), total(found))
