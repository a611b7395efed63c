"""A start imports what has changed since the last one, and nothing else."""

import random
from contextlib import asynccontextmanager
from itertools import count

import anyio
import pytest

from pubsubflow.loader import Loader, LoaderSettings
from pubsubflow.loader.compiled.building import compile_imports, import_folder
from pubsubflow.runner.caches.bundle_cache import BundleCache

pytestmark = pytest.mark.anyio
CHANGES = 20


@pytest.fixture
def started(folder, fork_server, tmp_path):
    """Start a loader on a store; leaving the block stops it."""

    @asynccontextmanager
    async def started(store, compiled=None, **settings):
        store.saves.clear()
        stopping = anyio.Event()
        settings = LoaderSettings(**{"slow_seconds": 60, **settings})
        loader = Loader(
            folder.root,
            fork_server=fork_server,
            store=store,
            cache=BundleCache(tmp_path / "cache"),
            settings=settings,
            compiled=compiled,
        )
        async with anyio.create_task_group() as group:
            with anyio.fail_after(90):
                await group.start(loader.run, stopping)
            yield {file for files in store.saves for file in files}
            stopping.set()

    return started


async def imports_of(started, store, **settings):
    async with started(store, **settings) as found:
        return found


class Tree:
    """DAG files, each of which reads something else, and what can be changed."""

    def __init__(self, folder, outside):
        self.folder, self.outside, self._numbers = folder, outside, count()
        self.imports = {
            "plain.py": (),
            "uses_module.py": ("import below",),
            "reads_beside.py": ("open(__file__.replace('reads_beside.py', 'data.yaml')).read()",),
            "lists.py": ("import os", "os.listdir(os.path.dirname(__file__) + '/parts')"),
            "environment.py": ("import os", "os.environ.get('FLOOR_LAKE')"),
            "asks.py": ("import os", "'FLOOR_ASKED' in os.environ"),
            "reads_outside.py": (f"open({str(outside / 'data.txt')!r}).read()",),
            "lists_outside.py": ("import os", f"os.scandir({str(outside / 'parts')!r})"),
            "imports_outside.py": (f"import sys; sys.path.append({str(outside)!r})", "import lib"),
            "looks_outside.py": (
                "try:",
                f"    open({str(outside / 'not_there.txt')!r})",
                "except OSError: pass",
            ),
        }
        for file, lines in self.imports.items():
            folder.dag(file, file.removesuffix(".py"), *lines)
        for name in ("below.py", "data.yaml", "parts/first.sql"):
            self.write(folder.root / name)
        for name in ("data.txt", "lib.py", "other.py", "parts/first"):
            self.write(outside / name)
        self.changes = {
            "text": (self.new_text, {"plain.py"}),
            "module": (self.change(folder.root / "below.py"), {"below.py", "uses_module.py"}),
            "data": (self.change(folder.root / "data.yaml"), {"reads_beside.py"}),
            "name": (self.add(folder.root / "parts"), {"lists.py"}),
            "outside": (self.change(outside / "data.txt"), {"reads_outside.py"}),
            "outside name": (self.add(outside / "parts"), {"lists_outside.py"}),
            "outside module": (self.change(outside / "lib.py"), {"imports_outside.py"}),
            "outside names": (self.add(outside), set()),
            "another module": (self.add_module(outside), {"imports_outside.py"}),
            "nothing that is read": (self.change(outside / "other.py"), set()),
            "another file": (self.add(folder.root), set()),
        }

    def write(self, path):
        number = next(self._numbers)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"VALUE = {number}  # {'x' * number}\n")

    def change(self, path):
        return lambda: self.write(path)

    def add(self, place):
        return lambda: self.write(place / f"added_{next(self._numbers)}.sql")

    def add_module(self, place):
        return lambda: self.write(place / f"added_{next(self._numbers)}.py")

    def new_text(self):
        self.folder.dag("plain.py", f"plain_{next(self._numbers)}")


@pytest.fixture
def tree(folder, tmp_path):
    return Tree(folder, tmp_path / "outside")


# Each file in a process of its own: what one has read counts for those after it, too.
ALONE = {"files_a_process": 1}


async def test_what_was_changed_is_imported_and_nothing_else(tree, started, make_store):
    store, chance = make_store(), random.Random(5)
    assert await imports_of(started, store, **ALONE) == {*tree.imports, "below.py"}
    for number in range(CHANGES):
        chosen = chance.sample(sorted(tree.changes), chance.randrange(4))
        for name in chosen:
            tree.changes[name][0]()
        expected = {file for name in chosen for file in tree.changes[name][1]}
        assert await imports_of(started, store, **ALONE) == expected, (number, chosen)
        # Those that are not imported are in force with what the folder holds, too.
        assert len({found.bundle for found in store.files.values() if found.dags}) == 1


async def test_a_variable_of_the_environment_counts_for_who_has_read_it(
    tree, started, make_store, monkeypatch
):
    store = make_store()
    await imports_of(started, store, **ALONE)
    for name, file in (("FLOOR_LAKE", "environment.py"), ("FLOOR_ASKED", "asks.py")):
        with monkeypatch.context() as patched:
            patched.setenv(name, "1")
            assert await imports_of(started, store, **ALONE) == {file}
        assert await imports_of(started, store, **ALONE) == set()
    monkeypatch.setenv("FLOOR_UNREAD", "1")
    tree.write(tree.outside / "not_there.txt")
    assert await imports_of(started, store, **ALONE) == {"looks_outside.py"}


UNCERTAIN = {
    "clock": ("from datetime import datetime", "datetime.now()"),
    "random": ("import random", "random.random()"),
    "process": ("import subprocess", "subprocess.run(['true'])"),
    "network": ("import socket", "socket.socket().close()"),
    "file": ("import pathlib", "pathlib.Path('/nowhere').exists()"),
    "writes": ("import tempfile", "tempfile.TemporaryFile()"),
}


async def test_what_is_uncertain_is_imported_after_the_start(folder, started, make_store):
    for name, lines in UNCERTAIN.items():
        folder.dag(f"{name}.py", name, *lines)
    folder.dag("plain.py", "plain")
    store = make_store()
    await imports_of(started, store, files_a_process=1)
    before = dict(store.counts)
    async with started(store, files_a_process=1) as imported:
        assert imported == set()
        await store.until(
            lambda store: all(
                store.counts[f"{name}.py"] == before[f"{name}.py"] + 1 for name in UNCERTAIN
            )
        )
    assert store.counts["plain.py"] == before["plain.py"]


async def test_files_that_share_a_process_are_not_imported_again(folder, started, make_store):
    for number in range(10):
        folder.dag(f"flow_{number}.py", f"flow_{number}", "import json, csv")
    store = make_store()
    assert len(await imports_of(started, store, processes=1)) == 10
    assert await imports_of(started, store, processes=1) == set()
    folder.dag("flow_3.py", "flow_3", "VALUE = 1")
    folder.dag("one_more.py", "one_more")
    assert await imports_of(started, store, processes=1) == {"flow_3.py", "one_more.py"}
    assert await imports_of(started, store, processes=1) == set()


async def test_what_failed_or_is_not_stored_as_it_was_is_imported_again(
    folder, started, make_store
):
    folder.write("bad.py", "1 / 0\n")
    folder.dag("one.py", "same")
    folder.dag("two.py", "same")
    folder.dag("good.py", "good")
    folder.dag("lost.py", "lost")
    store = make_store()
    await imports_of(started, store)
    assert store.files["two.py"].error
    assert "two.py" not in store.records
    store.records["good.py"] = b"of another version"
    store.files["lost.py"] = store.files["good.py"]
    assert await imports_of(started, store) >= {"bad.py", "two.py", "good.py", "lost.py"}
    assert store.dags() == {"same": "one.py", "good": "good.py", "lost": "lost.py"}
    # When the first is gone, the DAG is the other's.
    (folder.root / "one.py").unlink()
    assert "two.py" in await imports_of(started, store)
    assert store.dags()["same"] == "two.py"
    assert "two.py" not in await imports_of(started, store)


async def test_other_settings_or_another_place_import_everything(
    folder, started, make_store, monkeypatch
):
    folder.dag("one.py", "one")
    store = make_store()
    await imports_of(started, store)
    assert await imports_of(started, store, rescan_seconds=5) == set()
    assert await imports_of(started, store, import_seconds=5) == {"one.py"}
    moved = folder.root.rename(folder.root.with_name("moved"))
    folder.root = moved
    assert await imports_of(started, store, import_seconds=5) == {"one.py"}


async def test_a_manifest_stands_for_the_imports(started, make_store, folder, tmp_path):
    """What depends on the place is imported once the loader has started."""
    folder.dag("plain.py", "plain", "import below")
    folder.write("below.py", "VALUE = 1\n")
    folder.dag("environment.py", "environment", "import os", "os.environ.get('FLOOR_LAKE')")
    found = await import_folder(folder.root, LoaderSettings())
    compiled = compile_imports(found, found.files())
    store = make_store()
    async with started(store, compiled):
        await store.until(lambda store: store.counts["environment.py"] == 2)
        assert (store.counts["plain.py"], store.counts["below.py"]) == (1, 1)
        assert store.text("plain.py", "below.py") == "VALUE = 1\n"
        # What is edited is imported, whatever the manifest says.
        folder.dag("plain.py", "edited", "import below")
        await store.until(lambda store: "edited" in store.dags())
    store.counts.clear()
    async with started(store, compiled) as saved:
        assert saved == set()
    assert await imports_of(started, store) == set()
