"""Plugins that are installed beside a daemon."""

from pubsubflow.cli import output
from pubsubflow.cli.target import DEFAULT, Target


async def list_plugins(*, target: Target = DEFAULT) -> None:
    """List plugins beside a daemon, with why any of them cannot be imported.

    Args:
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.plugins()
    if target.json:
        output.show_list(found)
        return
    listing = output.Listing(
        *("plugin", "kind", "distribution", "version", "error"), elastic=["error"]
    )
    for each in found:
        listing.row(each.name, each.kind, each.distribution, each.version, each.error)
    listing.show(none="no plugins")
