"""Loaders on a folder of DAG files, with a store in memory."""

from collections import defaultdict
from textwrap import dedent

import anyio
import msgspec
import pytest

from pubsubflow.loader import Loader, LoaderSettings
from pubsubflow.loader.settings import PRELOAD
from pubsubflow.loader.snapshot import EarlyReading
from pubsubflow.model.source.stored_imports import StoredImport
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer
from support.signals import Signal


class MemoryStore:
    """A store in memory; a test waits for what the loader stores."""

    def __init__(self, known=None):
        self.files = {}
        self.saves = []
        self.removed = []
        self.failures = []
        self.bundles = {}
        self.befores = []
        self.contents = {}
        self.advanced = []
        self._known = known or {}
        self._signal = Signal()
        self.counts = defaultdict(int)
        self.records = {}

    async def imported_files(self):
        return self._known | {file: found.source for file, found in self.files.items()}

    async def stored_imports(self):
        return {
            file: StoredImport(
                record,
                tuple(dag.dag_id for dag in self.files[file].dags),
                (self.files[file].bundle,),
            )
            for file, record in self.records.items()
        }

    async def save(self, files, records):
        if self.failures:
            raise self.failures.pop()
        self.saves.append([loaded.file for loaded in files])
        for loaded in files:
            self.files[loaded.file] = loaded
            self.records.pop(loaded.file, None)
            self.counts[loaded.file] += 1
        self.records |= records
        self._signal.notify()

    async def save_bundle(self, bundle, manifest, read, before=None):
        self.befores.append(before)
        for file in manifest.files.values():
            self.contents[file.hash] = read(file)
        self.bundles[bundle] = manifest
        self._signal.notify()

    async def advance(self, bundle, files):
        self.advanced.append((bundle, files))
        self.counts_when_advanced = dict(self.counts)
        for file in files:
            self.files[file] = msgspec.structs.replace(self.files[file], bundle=bundle)
        self._signal.notify()

    async def retire(self, seconds):
        self.kept_seconds = seconds

    async def remove(self, files):
        self.removed += files
        for file in files:
            self.files.pop(file, None)
            self.records.pop(file, None)
        self._signal.notify()

    def text(self, file, name):
        """Return what a file of the bundle of a DAG file holds."""
        manifest = self.bundles[self.files[file].bundle]
        return self.contents[manifest.files[name].hash].decode()

    def dags(self):
        return {dag.dag_id: file for file, found in self.files.items() for dag in found.dags}

    async def until(self, condition, **limits):
        await self._signal.wait_until(lambda: condition(self), **limits)


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
async def start_loader(folder, fork_server, tmp_path):
    """Start loaders that stop with the test."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as group:

        async def start(store=None, *, wait=True, after_reading=None, **settings):
            store = store or MemoryStore()
            cache = BundleCache(tmp_path / "cache")
            settings = LoaderSettings(**{"slow_seconds": 60, **settings})
            early = None
            if after_reading is not None:
                early = EarlyReading(folder.root, cache, settings)
                early.result()
                after_reading()
            store.loader = loader = Loader(
                folder.root,
                fork_server=fork_server,
                store=store,
                cache=cache,
                settings=settings,
                early=early,
            )
            if wait:
                with anyio.fail_after(90):
                    await group.start(loader.run, stopping)
            else:
                group.start_soon(loader.run, stopping)
            return store

        yield start
        stopping.set()


@pytest.fixture
def make_store():
    return MemoryStore
