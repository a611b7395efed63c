"""Commands about pools."""

from pubsubflow.cli import output
from pubsubflow.cli.target import Asking

_DEFAULT = Asking()


async def list_pools(*, limit: int | None = None, asking: Asking = _DEFAULT) -> None:
    """List pools: their slots, how many are used, and how many tasks wait.

    Args:
        limit: How many at most; all if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.pools(limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("pool", "slots", "used", "waiting"), right=["slots", "used", "waiting"]
        )
        async for pool in found:
            slots = "no limit" if pool.slots is None else str(pool.slots)
            listing.row(pool.name, slots, str(pool.used), str(pool.waiting))
    listing.show(none="no pools")


async def set_pool(pool: str, slots: int, /, *, asking: Asking = _DEFAULT) -> None:
    """Let so many tasks of a pool run at once; it takes effect at once.

    Args:
        pool: Name of the pool, as tasks name it.
        slots: How many; 0 lets none start.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = await client.set_pool(pool, slots)
    if asking.json:
        output.show_json(found)
    else:
        output.show(f"{found.name}: {found.used} of {found.slots} slots used")


async def delete_pool(pool: str, /, *, asking: Asking = _DEFAULT) -> None:
    """Take a pool's limit away; tasks that still name it have no bound.

    Args:
        pool: Name of the pool.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        await client.remove_pool(pool)
    if not asking.json:
        output.show(f"{pool} has no limit any more")
