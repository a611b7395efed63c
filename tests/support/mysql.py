"""A MySQL server of a test's own: Debian's MariaDB, where it is installed."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.servers import find_free_ports

PACKAGES = "mariadb-server-core mariadb-client-core"
_SECONDS = 60
_ACCOUNT = """
CREATE DATABASE shop;
CREATE USER 'ann'@'%' IDENTIFIED BY 'mysql-sesame';
GRANT ALL ON shop.* TO 'ann'@'%';
"""


@contextmanager
def mysql_server(folder):
    """Run a server with the database `shop` of `ann`; gives its port, or skips the test."""
    server, install = map(shutil.which, ("mariadbd", "mariadb-install-db"))
    # What makes the first tables asks this for the settings.
    if server is None or install is None or shutil.which("my_print_defaults") is None:
        pytest.skip(f"there is no MariaDB here: apt-get install {PACKAGES}")
    data, first = Path(folder, "data"), Path(folder, "first.sql")
    first.write_text(_ACCOUNT)
    common = ["--no-defaults", f"--datadir={data}", *(["--user=root"] if os.geteuid() == 0 else [])]
    made = [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(made, check=True, capture_output=True)
    (port,) = find_free_ports(1)
    command = [server, *common, f"--port={port}", "--bind-address=127.0.0.1"]
    command += [f"--socket={data}/mysql.sock", f"--init-file={first}", f"--pid-file={data}/pid"]
    with Path(folder, "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait(port, process)
            yield port
        finally:
            process.terminate()


def _wait(port, process):
    end = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the server does not listen at {port} (exit code {process.poll()})")
