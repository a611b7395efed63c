"""A daemon for the fault matrix: settings as JSON in, one line once it is ready.

Usage: fault_daemon.py '{"home": …, "roles": […], "dags": …, "nats_url": …, …}'
"""

import os
import sys
from functools import partial
from pathlib import Path

import anyio
import msgspec

from pubsubflow.api.settings import ApiSettings
from pubsubflow.bus import BusSettings
from pubsubflow.config import Config, LogSettings
from pubsubflow.daemon import run_daemon
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.runner.parent_death import follow_parent
from pubsubflow.store.database import PostgresSettings
from pubsubflow.store.secrets.keyring import SecretsSettings


class Order(msgspec.Struct, kw_only=True):
    """What a daemon is told; without an address of NATS it has servers of its own.

    Attributes:
        parent: Who starts it; it ends when that process does.
        key_file: Of the secrets; daemons that share a database share it.
    """

    parent: int
    home: str
    roles: frozenset[str]
    dags: str
    nats_url: str | None = None
    nats_token: str | None = None
    postgres_url: str = ""
    key_file: str | None = None


def main(order: Order) -> None:
    """Run the daemon until it is told, or made, to end."""
    follow_parent(order.parent, None)
    config = Config(
        home=Path(order.home),
        api=ApiSettings(port=0),
        log=LogSettings(format="json"),
        postgres=PostgresSettings(url=order.postgres_url),
        nats=BusSettings(url=order.nats_url or "", token=order.nats_token),
        secrets=SecretsSettings(key_file=Path(order.key_file) if order.key_file else None),
    )
    set_up_logging(config.log)
    daemon = partial(
        run_daemon,
        config,
        roles=order.roles,
        dags=Path(order.dags),
        embedded=order.nats_url is None,
        on_ready=lambda url: os.write(1, f"{url}\n".encode()),
    )
    anyio.run(daemon, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Order))
