"""Retention at the command line: what is due, removed or only counted."""

import os
from pathlib import Path

import anyio

from pubsubflow.cli import output
from pubsubflow.cli.offline_database import open_offline_database
from pubsubflow.config import Config, load_config
from pubsubflow.errors import ConfigError
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.object_store import FileStore, open_log_store
from pubsubflow.retention import Archive, Pruner, summed
from pubsubflow.store.slices import Removal


def prune_database(
    *,
    dry_run: bool = False,
    postgres_url: str | None = None,
    home: Path | None = None,
    config: Path | None = None,
    json: bool = False,
) -> None:
    """Remove what is older than `[retention]` says, as a daemon does every few minutes.

    Args:
        dry_run: Count only what would be removed, per table, with its bytes.
        postgres_url: URL of your Postgres; that of the home folder if left out.
        home: Home folder; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON.
    """
    settings = load_config(
        file=config,
        environ=os.environ,
        flags={"home": home, "postgres.url": postgres_url},
        defaults={"log": {"level": "warning"}},
    )
    set_up_logging(settings.log)
    removals = anyio.run(_prune, settings, dry_run)
    if json:
        output.show_list(removals)
        return
    listing = output.Listing(
        "table", "rows" if dry_run else "rows, about", "bytes", right=["rows", "bytes"]
    )
    for each in removals:
        listing.row(each.table, f"{each.rows:,}", f"{each.bytes:,}" if each.bytes else None)
    listing.show(none="nothing is due")


async def _prune(config: Config, dry_run: bool) -> list[Removal]:  # noqa: FBT001 - anyio.run
    settings = config.retention
    archive = Archive(settings.archive, settings.archive_format) if settings.archive else None
    log_store = open_log_store(config.logs.store) if config.logs.store else None
    url = config.results.store
    results = FileStore(url, setting="results.store") if url else None
    async with open_offline_database(config, beside=True) as database:
        pruner = Pruner(database, settings, archive, log_store, results)
        found = await pruner.prune(dry_run=dry_run)
    if found is None:
        raise ConfigError("a daemon removes what is due at this moment: try again in a minute")
    return summed(found)
