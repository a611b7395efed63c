"""Output of a process for one attempt: its streams and Airflow's log lines go down one pipe."""

import os
import sys
from typing import TextIO

from airflow.sdk.log import configure_logging


def use_output(descriptor: int) -> None:
    """Send stdout, stderr and the log lines of this process to a file descriptor."""
    sys.stdout.flush()
    sys.stderr.flush()
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    sys.stdout, sys.stderr = _by_lines(1), _by_lines(2)
    # Masked here: the secrets of connections that are used are known in this process.
    lines = os.fdopen(os.dup(1), "wb", 0)
    configure_logging(json_output=True, output=lines, sending_to_supervisor=False)


def _by_lines(standard: int) -> TextIO:
    return open(standard, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
