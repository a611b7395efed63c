"""Peer: an orchestrator under test, as the suite installs, starts, kills and loads it."""

import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import psutil

from benchmarks.peers.database import Database
from benchmarks.peers.environment import Environment
from benchmarks.peers.marks import Marks
from benchmarks.peers.processes import Group

PROGRAMS = Path(__file__).parent / "programs"
READY_SECONDS = 180.0
_MODULES = ("task_marks.py", "client_loop.py")


class Site:
    """Where a peer runs: its environment, folder, database, and variables.

    Args:
        environment: The interpreter with the peer.
        folder: Existing folder for all that it writes.
        database: Its PostgreSQL; None if it brings its own.
        settings: Variables that make up its settings.

    Attributes:
        marks: What tasks append to $PEERS_MARKS.
        ready: File $PEERS_READY, which a program may make once it takes work; removed at a start.
    """

    def __init__(
        self,
        environment: Environment,
        folder: Path,
        database: Database | None,
        settings: Mapping[str, str],
    ) -> None:
        self.environment = environment
        self.folder = folder
        self.marks = Marks(folder / "marks")
        self.ready = folder / "ready"
        self._database = database
        self.group = Group(folder)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
        }
        self.environ = {
            **inherited,
            "PATH": f"{environment.python.parent}{os.pathsep}{inherited.get('PATH', '')}",
            "PEERS_MARKS": str(folder / "marks"),
            "PEERS_READY": str(self.ready),
            **settings,
        }

    @property
    def database(self) -> Database:
        """The peer's PostgreSQL."""
        if self._database is None:
            raise RuntimeError("this peer has no database of the suite's")
        return self._database

    def place_program(self, name: str) -> Path:
        """Copy a program of `programs/` into a folder of its own, with what it imports."""
        folder = self.folder / "programs"
        folder.mkdir(exist_ok=True)
        for module in _MODULES:
            shutil.copy(PROGRAMS / module, folder)
        return Path(shutil.copy(PROGRAMS / name, folder))

    def processes(self) -> list[psutil.Process]:
        """Return the peer's processes and its database's."""
        found = self.group.processes()
        return found if self._database is None else found + self._database.processes()


class Peer(ABC):
    """An orchestrator under test.

    Workloads are requested by name: `one` (a task), `slow` (a task of 0.2 s), `pair` (two
    workflows, the second follows the first), `chain` (ten that follow one another), `fan` (ten that
    one event starts) and `ten` (a workflow of ten tasks). Tasks mark their starts and ends by
    `task_marks.body`.

    Args:
        site: Where it runs.

    Attributes:
        name: As in `python -m benchmarks.peers NAME`, and of its requirements file.
        settings: Name of settings → variables; `default` sets what is needed to run at all.
    """

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Mapping[str, str]]]

    def __init__(self, site: Site) -> None:
        self.site = site

    @abstractmethod
    def prepare(self) -> None:
        """Place its programs, and make its tables; called once, before the first start."""

    @abstractmethod
    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return what to start, by name, in this order."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether it says that it is ready, by its own check of health."""

    @abstractmethod
    def send(self, workload: str, keys: Sequence[str]) -> None:
        """Have a workload run for each key, by an event or a trigger from outside.

        Returns once the peer has acknowledged them.

        Raises:
            OSError: It did not: it is away, or refused.
        """

    @abstractmethod
    def post(self, count: int, clients: int) -> float:
        """Post events that nothing waits for, from so many clients; return how many a second."""

    def start(self) -> float:
        """Start it; return the seconds until it is ready.

        Raises:
            RuntimeError: A process of it ended.
            TimeoutError: It is not ready in three minutes.
        """
        self.site.ready.unlink(missing_ok=True)
        started = time.perf_counter()
        for name, command in self.commands().items():
            self.site.group.start(name, command, cwd=self.site.folder, environ=self.site.environ)
        self.site.group.wait_for(self.is_ready, READY_SECONDS)
        return time.perf_counter() - started

    def stop(self) -> None:
        """Stop it in an orderly way."""
        self.site.group.stop()

    def kill(self) -> None:
        """Kill all of its processes with signal 9; a database of the suite's lives on."""
        self.site.group.kill()

    def close(self) -> None:  # noqa: B027 - most keep nothing
        """End what it keeps in the suite's process."""

    @classmethod
    def needs_database(cls, settings: str) -> bool:
        """Return whether the suite gives it a PostgreSQL, with these settings."""
        del settings
        return True

    def postgres_dsn(self) -> str | None:
        """Return the address of its PostgreSQL, once it runs; None without one."""
        return self.site.database.url()

    @classmethod
    def own_environment(cls) -> Environment | None:
        """Return the environment to use instead of one from PyPI; None for that of the cache."""
        return None

    @staticmethod
    def here(version: str) -> Environment:
        """Return the environment of this process."""
        return Environment(Path(sys.executable), version)
