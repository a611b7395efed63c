from collections import defaultdict
from textwrap import dedent

import anyio
import pytest

from pubsubflow.loader import Loader, LoaderSettings
from pubsubflow.loader.service import PRELOAD
from pubsubflow.runner.forkserver import ForkServer


class MemorySink:
    """Keeps what the loader stores, and lets tests wait for it."""

    def __init__(self, known=None):
        self.files = {}
        self.saves = []
        self.removed = []
        self.failures = []
        self._known = known or {}
        self._changed = anyio.Event()
        self.counts = defaultdict(int)

    async def known(self):
        return self._known

    async def save(self, files):
        if self.failures:
            raise self.failures.pop()
        self.saves.append([loaded.file for loaded in files])
        for loaded in files:
            self.files[loaded.file] = loaded
            self.counts[loaded.file] += 1
        self._tell()

    async def remove(self, files):
        self.removed += files
        for file in files:
            self.files.pop(file, None)
        self._tell()

    def dags(self):
        return {dag.dag_id: file for file, found in self.files.items() for dag in found.dags}

    def _tell(self):
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition, seconds=20):
        with anyio.fail_after(seconds):
            while not condition(self):
                await self._changed.wait()


class DagsFolder:
    """Writes DAG files."""

    def __init__(self, root):
        self.root = root

    def write(self, file, text):
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        return path

    def dag(self, file, dag_id, *imports):
        lines = ["from pubsubflow import DAG, EmptyOperator", *imports]
        lines += [f"with DAG({dag_id!r}):", "    EmptyOperator(task_id='t')"]
        return self.write(file, "\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "dags"
    root.mkdir()
    return DagsFolder(root)


@pytest.fixture(scope="session")
async def fork_server(anyio_backend):
    async with ForkServer.start(preload=PRELOAD) as server:
        yield server


@pytest.fixture
async def start_loader(folder, fork_server):
    """Start loaders that stop with the test."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:

        async def start(sink=None, *, wait=True, **settings):
            sink = sink or MemorySink()
            loader = Loader(
                folder.root, fork_server=fork_server, sink=sink, settings=LoaderSettings(**settings)
            )
            if wait:
                with anyio.fail_after(30):
                    await group.start(loader.run, stopping)
            else:
                group.start_soon(loader.run, stopping)
            return sink

        yield start
        stopping.set()


@pytest.fixture
def make_sink():
    return MemorySink
