"""A daemon in a child process that lives as long as a command."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STOP_SECONDS = 45.0


@contextmanager
def child_daemon(dags: Path, *, home: Path, port: int) -> Iterator[str]:
    """Run `pubsubflow up` and yield its URL; the daemon stops with the block or this process.

    Its log goes to stderr.

    Args:
        dags: The DAGs folder.
        home: Home folder.
        port: TCP port; 0 for a free one.

    Raises:
        SystemExit: It ended before it was ready and has logged the reason; with its exit code.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        # Without the user's configuration file: its servers and ports are not for this daemon.
        [
            *(sys.executable, "-P", "-m", "pubsubflow.cli.main", "up", str(dags)),
            *("--home", str(home), "--port", str(port), "--config", os.devnull),
            *("--ready-fd", str(writer), "--parent", str(os.getpid())),
        ],
        # The daemon stops at the end of this pipe, so it does not outlive a parent that is killed.
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[writer],
        # Its DAGs are ours, and write into the folders of this command, also where that is root's.
        env={**os.environ, "PUBSUBFLOW__WORKER__RUN_AS": ""},
        # Ctrl-C must reach this process alone, which then stops the daemon in order.
        start_new_session=True,
    )
    try:
        # With our copy of the writing end closed, readline() returns when the daemon ends early.
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
