"""The audit log: who changed what."""

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.target import DEFAULT, Target


async def list_audit(
    *, by: str | None = None, limit: Limit | None = 100, target: Target = DEFAULT
) -> None:
    """List changes and refused requests with their authors, the newest first.

    Args:
        by: Only entries of the token with this name; local for requests without a token.
        limit: How many entries at most; 100 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.audit(principal=by, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("time", "who", "status", "what", "object", "from", "times"),
            narrow=5,
            right=["status", "times"],
            elastic=["object"],
            times=["time"],
        )
        async for entry in found:
            listing.row(
                output.brief(entry.at),
                entry.principal,
                "?" if entry.status is None else str(entry.status),
                entry.action,
                entry.object,
                entry.remote,
                str(entry.times),
            )
    listing.show(none="no entries")
