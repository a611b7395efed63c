"""Daemon for the fault tests: takes options as JSON, prints its URL once it is ready.

Usage: daemon.py '{"home": …, "roles": […], "dags": …, "nats_url": …, …}'. With the address of a
Dask scheduler in `FAULT_DASK`, all tasks run there.
"""

import os
import resource
import select
import sys
import time
from functools import partial
from pathlib import Path

import anyio
import msgspec

from pubsubflow.api.settings import ApiSettings
from pubsubflow.bus import BusSettings
from pubsubflow.config import Config, LogSettings
from pubsubflow.daemon import run_daemon
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.runner.parent_death import end_with_parent
from pubsubflow.store.secrets.keyring import SecretsSettings
from pubsubflow.store.servers.settings import PostgresSettings
from pubsubflow.worker import WorkerSettings


class DaemonOptions(msgspec.Struct, kw_only=True):
    """Options of a daemon; without an address of NATS it has servers of its own.

    Attributes:
        parent: The process that starts it; it ends with that process.
        key_file: That of the secrets; daemons that share a database share it.
        open_files: How many files it may open, if that is limited.
        host: Where its API listens.
    """

    parent: int
    home: str
    roles: frozenset[str]
    dags: str
    nats_url: str | None = None
    nats_token: str | None = None
    postgres_url: str = ""
    key_file: str | None = None
    open_files: int | None = None
    host: str = "127.0.0.1"


def main(options: DaemonOptions) -> None:
    """Run the daemon until it ends."""
    end_with_parent(options.parent, None)
    if options.open_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.open_files, options.open_files))
    dask = os.environ.get("FAULT_DASK")
    config = Config(
        home=Path(options.home),
        # Refusals are those of outages here, not of a busy machine.
        api=ApiSettings(host=options.host, port=0, max_lag_seconds=120.0),
        worker=WorkerSettings(run_as="", executor="dask" if dask else "local"),
        executors={"dask": {"address": dask, "slots": 24}} if dask else {},
        log=LogSettings(format="json"),
        # Ready means here that all DAGs are known, however slow the machine.
        loader=LoaderSettings(slow_seconds=30.0),
        postgres=PostgresSettings(url=options.postgres_url),
        nats=BusSettings(url=options.nats_url or "", token=options.nats_token),
        secrets=SecretsSettings(key_file=Path(options.key_file) if options.key_file else None),
    )
    set_up_logging(config.log)
    daemon = partial(
        run_daemon,
        config,
        roles=options.roles,
        dags=Path(options.dags),
        embedded=options.nats_url is None,
        on_ready=lambda url: os.write(1, f"{url}\n".encode()),
    )
    anyio.run(daemon, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        # libfaketime makes `time.sleep` fail now and then, with which subprocess waits.
        time.sleep = lambda seconds: select.select((), (), (), seconds)
    main(msgspec.json.decode(sys.argv[1], type=DaemonOptions))
