"""Commands about the daemon's database."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from pubsubflow.cli import output
from pubsubflow.cli.offline_database import opened
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
    """Bring the tables up to date; a daemon does it by itself when it starts.

    Args:
        postgres_url: Your Postgres; that of the home folder if left out.
        home: Home folder; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Answer in JSON.
    """
    names = _on_database(postgres_url, home, config, migrate.migrate)
    _tell(names, json=json, verb="applied", none="the database was up to date")


def check_database(
    *,
    postgres_url: str | None = None,
    home: Path | None = None,
    config: Path | None = None,
    json: bool = False,
) -> int:
    """Tell whether the tables are up to date; fails if not.

    Args:
        postgres_url: Your Postgres; that of the home folder if left out.
        home: Home folder; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Answer in JSON.
    """
    names = _on_database(postgres_url, home, config, migrate.check)
    _tell(names, json=json, verb="pending", none="the database is up to date")
    return 1 if names else 0


def _tell(names: list[str], *, json: bool, verb: str, none: str) -> None:
    if json:
        output.show_json({verb: names})
        return
    output.show(*([f"{verb}: {name}" for name in names] or [none]))


def _on_database(
    url: str | None,
    home: Path | None,
    file: Path | None,
    work: Callable[[Database], Awaitable[list[str]]],
) -> list[str]:
    config = load_config(
        file=file,
        environ=os.environ,
        flags={"home": home, "postgres.url": url},
        defaults={"log": {"level": "warning"}},
    )
    set_up_logging(config.log)

    async def do() -> list[str]:
        async with opened(config) as database:
            return await work(database)

    return anyio.run(do)
