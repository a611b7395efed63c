"""Rotation of keys in processes that end abruptly, each at another line: `DSN FOLDER`.

Each process first reads every secret with the keys that the one before it left, then rotates and
ends at its line. Prints the number of lines.
"""

import os
import sys
import threading
from collections import Counter
from pathlib import Path

import anyio
import structlog

from pubsubflow.model.connections import make_connection
from pubsubflow.store import database
from pubsubflow.store.database import Database
from pubsubflow.store.secrets import connections as stored
from pubsubflow.store.secrets import keyring
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import Keyring
from pubsubflow.store.servers.settings import PostgresSettings

SECRETS = {"a": "secret of a", "b": "secret of b"}
DIED, LOST = 9, 3
TIMES = 2
WHOLE = frozenset({stored.__file__, keyring.__file__})


def die_at(line: int) -> None:
    """End this process when the rotation comes to a line, counted as they are run.

    A line in a loop counts twice at most.
    """
    left = line
    met = Counter()

    def trace(frame, event, _):
        nonlocal left
        code = frame.f_code
        if code.co_filename not in WHOLE and (
            code.co_filename != database.__file__ or code.co_name != "begin"
        ):
            return None
        line_key = code.co_filename, frame.f_lineno
        if event == "line" and met[line_key] < TIMES:
            met[line_key] += 1
            if not left:
                os._exit(DIED)
            left -= 1
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


async def run(dsn: str, folder: Path, line: int) -> None:
    async with Database.open(PostgresSettings(url=dsn, pool_max_size=1)) as opened:
        found = Connections(opened, Keyring(folder / "keys"))
        if line < 0:
            for name, secret in SECRETS.items():
                await found.save(make_connection(name, secrets={"token": secret}))
            return
        if {name: (await found.read(name)).secret() for name in SECRETS} != SECRETS:
            os._exit(LOST)
        die_at(line)
        await found.rotate()
        sys.settrace(None)
        threading.settrace(None)
        if len(await found._keys.read()) != 1:
            os._exit(LOST)


def main(dsn: str, folder: Path) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    anyio.run(run, dsn, folder, -1)
    line = 0
    while True:
        child = os.fork()
        if not child:
            anyio.run(run, dsn, folder, line)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            break
        if code != DIED:
            sys.exit(f"after a death at line {line - 1}: exit code {code}")
        line += 1
    print(line)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
