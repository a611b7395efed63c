"""A daemon in a child process, for as long as a command runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STOP_SECONDS = 45.0


@contextmanager
def hosted_daemon(dags: Path, *, home: Path, port: int) -> Iterator[str]:
    """Run `pubsubflow up` and give its URL; it stops with the block, and with this process.

    What it has to say goes to stderr.

    Args:
        dags: The DAGs folder.
        home: Home folder.
        port: TCP port; 0 for a free one.

    Raises:
        SystemExit: It ended before it was ready and has said why; with its exit code.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pubsubflow.cli.main", "up", str(dags)),
            *("--home", str(home), "--port", str(port), "--config", os.devnull),
            *("--ready-fd", str(writer), "--parent", str(os.getpid())),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[writer],
        start_new_session=True,
    )
    try:
        os.close(writer)
        with os.fdopen(reader) as ready:
            url = ready.readline().strip()
        if not url:
            raise SystemExit(process.wait())
        yield url
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
