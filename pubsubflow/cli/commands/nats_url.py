"""The address of a daemon's own NATS, for clients of NATS."""

import os
from pathlib import Path

from pubsubflow.cli import output
from pubsubflow.config.sources import home_of, read_sources
from pubsubflow.embedded import find_running
from pubsubflow.errors import Unavailable


def print_nats_url(
    *, home: Path | None = None, config: Path | None = None, json: bool = False
) -> None:
    """Print the URL of a daemon's own NATS, with its token.

    Args:
        home: Home folder of the daemon; $PUBSUBFLOW_HOME or ~/.pubsubflow if left out.
        config: Configuration file; ./pubsubflow.toml if left out.
        json: Print JSON, with URL and token apart.
    """
    path = home_of(read_sources(file=config, environ=os.environ, flags={"home": home}))
    servers = find_running(path)
    if servers is None:
        raise Unavailable(
            f"no daemon with a NATS of its own runs on home {path}: start one with `pubsubflow "
            "up`, or name it by --home; a NATS of yours has the address in nats.url"
        )
    url, token = servers.nats.url, servers.nats.token
    scheme, _, place = url.partition("://")
    whole = f"{scheme}://{token}@{place}"
    output.show_result({"url": url, "token": token, "url_with_token": whole}, whole, json=json)
