"""The database of a daemon: migrations, applied or checked without a daemon."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from pubsubflow.cli import output
from pubsubflow.cli.offline_database import open_offline_database
from pubsubflow.config import load_config
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.store import migrate
from pubsubflow.store.database import Database


def migrate_database(
    *,
    postgres_url: str | None = None,
    home: Path | None = None,
    config: Path | None = None,
    json: bool = False,
) -> None:
    """Migrate the tables to this version; a daemon does so when it starts.

    Args:
        postgres_url: URL of your Postgres; that of the home folder if left out.
        home: Home folder; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON.
    """
    names = _with_database(postgres_url, home, config, migrate.migrate)
    _show(names, json=json, verb="applied", none="the database was up to date")


def check_database(
    *,
    postgres_url: str | None = None,
    home: Path | None = None,
    config: Path | None = None,
    json: bool = False,
) -> int:
    """Check whether the tables are up to date, and fail if not.

    Args:
        postgres_url: URL of your Postgres; that of the home folder if left out.
        home: Home folder; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON.
    """
    names = _with_database(postgres_url, home, config, migrate.check, beside=True)
    _show(names, json=json, verb="pending", none="the database is up to date")
    return 1 if names else 0


def _show(names: list[str], *, json: bool, verb: str, none: str) -> None:
    lines = [f"{verb}: {name}" for name in names] or [none]
    output.show_result({verb: names}, *lines, json=json)


def _with_database(
    url: str | None,
    home: Path | None,
    file: Path | None,
    work: Callable[[Database], Awaitable[list[str]]],
    *,
    beside: bool = False,
) -> list[str]:
    config = load_config(
        file=file,
        environ=os.environ,
        flags={"home": home, "postgres.url": url},
        defaults={"log": {"level": "warning"}},
    )
    set_up_logging(config.log)

    async def do() -> list[str]:
        async with open_offline_database(config, beside=beside) as database:
            return await work(database)

    return anyio.run(do)
