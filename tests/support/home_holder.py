"""Process that holds a home until it is killed: ``python home_holder.py HOME``.

Prints the servers' process ids as a line of JSON once they are ready, or ends with the error.
"""

import json
import sys
from pathlib import Path

import anyio
import structlog

from pubsubflow.embedded import EmbeddedServers
from pubsubflow.errors import ConfigError


async def hold(home: Path) -> None:
    async with EmbeddedServers(home) as servers:
        pids = {"nats": servers.nats_pid, "postgres": servers.postgres_pid}
        sys.stdout.write(json.dumps(pids) + "\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
try:
    anyio.run(hold, Path(sys.argv[1]))
except ConfigError as error:
    sys.exit(str(error))
