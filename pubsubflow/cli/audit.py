"""The command about who did what."""

from pubsubflow.cli import output
from pubsubflow.cli.target import Asking

_DEFAULT = Asking()


async def list_audit(
    *, by: str | None = None, limit: int | None = 100, asking: Asking = _DEFAULT
) -> None:
    """List who did what, and who was not let, the newest first.

    Args:
        by: Only what this token's holder did, by its name, or local.
        limit: How many at most.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.audit(asker=by, limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("time", "who", "status", "what", "object", "from", "times"),
            narrow=5,
            right=["status", "times"],
            elastic=["object"],
        )
        async for deed in found:
            listing.row(
                output.brief(deed.at),
                deed.asker,
                "?" if deed.status is None else str(deed.status),
                deed.action,
                deed.object,
                deed.remote,
                str(deed.times),
            )
    listing.show(none="nobody changed anything yet")
