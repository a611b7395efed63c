"""A Dask cluster: a scheduler and workers, each a process of its own that a test may kill."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil

from support.signals import TIMEOUT_SECONDS


class DaskCluster:
    """A scheduler at a fixed address, and its workers by name.

    Attributes:
        address: Of the scheduler.
        workers: Their processes by name.
    """

    def __init__(self, folder, environ=None):
        self.folder = folder
        self.environ = environ or {}
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = None
        self.workers = {}
        self.ending = []

    @classmethod
    @contextmanager
    def start(cls, folder, *, workers=2, environ=None, **options):
        cluster = cls(folder, environ)
        try:
            cluster.start_scheduler()
            for number in range(workers):
                cluster.start_worker(f"d{number}", **options)
            yield cluster
        finally:
            cluster.close()

    def start_scheduler(self):
        """Start the scheduler, and wait until it listens."""
        port = str(self.port)
        self.scheduler = self._spawn("scheduler", "--host", "127.0.0.1", "--port", port)
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < give_up_at:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise TimeoutError("the Dask scheduler does not listen")

    def start_worker(self, name, *, threads=8, **resources):
        """Start a worker."""
        given = " ".join(f"{key}={value}" for key, value in resources.items())
        options = ["--nthreads", str(threads), "--no-nanny", "--name", name]
        options += ["--local-directory", str(self.folder / name), "--host", "127.0.0.1"]
        if given:
            options += ["--resources", given]
        self.workers[name] = self._spawn("worker", self.address, *options)

    def kill_scheduler(self):
        """Kill the scheduler with -9."""
        self.scheduler.kill()
        self.scheduler.wait()

    def kill_worker(self, name, *, alone=False):
        """Kill a worker with -9, and what it started unless that is to outlive it."""
        process = self.workers.pop(name)
        found = [] if alone else psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for each in found:
            with suppress(psutil.NoSuchProcess):
                each.kill()

    def wait_for_workers(self):
        """Wait until all workers have ended by themselves."""
        for name in list(self.workers):
            self.workers.pop(name).wait(TIMEOUT_SECONDS)

    def leave_workers(self):
        """Start no more with these workers: they end by themselves."""
        self.ending += self.workers.values()
        self.workers = {}

    def name_of(self, address):
        """Return the name of the worker that listens at an address."""
        port = int(address.rpartition(":")[2])
        return next(
            name
            for name, each in self.workers.items()
            for found in psutil.Process(each.pid).net_connections("tcp")
            if (found.status, found.laddr.port) == (psutil.CONN_LISTEN, port)
        )

    def close(self):
        """End all processes; hosts would wait for servers of tests that are gone."""
        for name in list(self.workers):
            self.kill_worker(name)
        if self.scheduler is not None:
            self.kill_scheduler()
        for each in self.ending:
            each.wait(TIMEOUT_SECONDS)

    def _spawn(self, kind, *arguments):
        self.folder.mkdir(exist_ok=True, parents=True)
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    f"distributed.cli.dask_{kind}",
                    *arguments,
                    "--no-dashboard",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={
                    **os.environ,
                    **self.environ,
                    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s",
                },
            )
