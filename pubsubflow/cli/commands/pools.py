"""Pools and workers bound how many tasks run at once."""

from collections.abc import Iterable

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.model.api.resources import RateLimitView
from pubsubflow.model.wire.task_resources import format_memory


async def list_pools(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List pools with their slots, used slots and waiting tasks; then rate limits.

    Args:
        limit: How many pools at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.pools(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        rates = [each async for each in client.rate_limits(limit=limit)]
        listing = output.Listing(
            *("pool", "slots", "used", "waiting"), right=["slots", "used", "waiting"]
        )
        async for pool in found:
            slots = "no limit" if pool.slots is None else str(pool.slots)
            listing.row(pool.name, slots, str(pool.used), str(pool.waiting))
    listing.show(none="no pools")
    if rates:
        _show_rates(rates)


async def list_rate_limits(*, limit: Limit | None = None, target: Target = DEFAULT) -> None:
    """List rate limits with the starts that are left and the tasks that wait.

    Args:
        limit: How many rate limits at most; all if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.rate_limits(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        rates = [each async for each in found]
    _show_rates(rates)


def _show_rates(rates: Iterable[RateLimitView]) -> None:
    listing = output.Listing(
        *("rate limit", "rate", "available", "waiting", "next"),
        right=["available", "waiting"],
        times=["next"],
    )
    for each in rates:
        upcoming = "" if each.next_at is None else output.brief(each.next_at)
        listing.row(each.name, each.rate, str(each.available), str(each.waiting), upcoming)
    listing.show(none="no rate limits")


async def set_pool(pool: str, slots: int, /, *, target: Target = DEFAULT) -> None:
    """Limit how many tasks of a pool, or of a tag, run at once, with immediate effect.

    Args:
        pool: Name of the pool, as in the tasks' pool=; or tag:NAME for the tasks of all DAGs that
            have the tag, runs:tag:NAME for their active runs.
        slots: How many tasks, or runs; with 0 none starts.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.set_pool(pool, slots)
    text = f"{found.name}: {found.used} of {found.slots} slots used"
    output.show_result(found, text, json=target.json)


async def delete_pool(pool: str, /, *, target: Target = DEFAULT) -> None:
    """Remove the limit of a pool or a tag; tasks that still name the pool are not limited.

    Args:
        pool: Name of the pool, or tag:NAME, or runs:tag:NAME.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        await client.remove_pool(pool)
    if not target.json:
        output.show(f"{pool} has no limit any more")


async def list_workers(*, target: Target = DEFAULT) -> None:
    """List workers with their queues, slots and versions, as of their last heartbeats.

    Args:
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        workers = (await client.info()).workers
    if target.json:
        output.show_list(workers)
        return
    listing = output.Listing(
        *("worker", "queues", "busy", "slots", "free sync", "free async", "free memory"),
        *("free cpu", "seen", "started", "host", "pid", "version"),
        narrow=5,
        right=["busy", "slots", "free sync", "free async", "free memory", "free cpu", "pid"],
        elastic=["worker", "queues", "host"],
        times=["seen"],
    )
    for worker in workers:
        listing.row(
            worker.worker,
            ", ".join(worker.queues),
            str(worker.busy),
            str(worker.slots),
            str(worker.free_sync),
            str(worker.free_async),
            None if worker.free_memory is None else format_memory(worker.free_memory),
            None if worker.free_cpu is None else f"{worker.free_cpu:g}",
            output.brief(worker.seen_at),
            output.brief(worker.started_at),
            worker.host,
            str(worker.pid),
            worker.version or "unknown",
        )
    listing.show(none="no workers")
