"""How the loader follows its folder."""

import os
import shutil

import anyio
import pytest

from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.loader import Loader
from pubsubflow.runner.bundle_cache import BundleCache

pytestmark = pytest.mark.anyio


async def test_started_means_that_the_first_scan_is_stored(folder, start_loader):
    for number in range(20):
        folder.dag(f"f{number:02}.py", f"d{number}")
    folder.write("bad.py", "1 / 0")
    store = await start_loader()
    assert len(store.dags()) == 20
    assert "ZeroDivisionError" in store.files["bad.py"].error
    assert sum(map(len, store.saves)) == 21


async def test_an_empty_folder_is_started_at_once(start_loader):
    store = await start_loader()
    assert store.saves == []


async def test_changes_are_seen_within_a_second(folder, start_loader):
    folder.dag("a.py", "a")
    store = await start_loader()
    folder.dag("b.py", "b")
    await store.until(lambda store: "b" in store.dags(), seconds=1)
    folder.dag("a.py", "a2")
    await store.until(lambda store: store.dags() == {"a2": "a.py", "b": "b.py"}, seconds=1)
    (folder.root / "b.py").rename(folder.root / "c.py")
    await store.until(lambda store: store.dags() == {"a2": "a.py", "b": "c.py"}, seconds=1)
    (folder.root / "a.py").unlink()
    await store.until(lambda store: store.dags() == {"b": "c.py"}, seconds=1)
    assert sorted(store.removed) == ["a.py", "b.py"]


async def test_folders_that_come_and_go_are_seen(folder, start_loader, tmp_path):
    store = await start_loader()
    folder.dag("sub/deep/a.py", "a")
    await store.until(lambda store: "a" in store.dags())
    (folder.root / "sub").rename(folder.root / "other")
    await store.until(lambda store: store.dags() == {"a": "other/deep/a.py"})
    shutil.rmtree(folder.root / "other")
    await store.until(lambda store: store.dags() == {})


async def test_files_gone_while_no_loader_ran_are_removed(folder, start_loader, make_store):
    folder.dag("a.py", "a")
    store = await start_loader(make_store({"a.py": "hash", "gone.py": "hash"}))
    assert store.removed == ["gone.py"]
    assert store.dags() == {"a": "a.py"}


async def test_a_touched_file_is_not_imported_again(folder, start_loader):
    path = folder.dag("a.py", "a")
    store = await start_loader()
    os.utime(path, (1, 1))
    folder.dag("b.py", "b")
    await store.until(lambda store: "b" in store.dags())
    assert store.counts == {"a.py": 1, "b.py": 1}


async def test_a_changed_helper_loads_again_the_files_that_import_it(folder, start_loader):
    folder.write("_names.py", "NAME = 'one'")
    folder.write("uses.py", "import _names\nfrom pubsubflow import DAG\nDAG(_names.NAME)\n")
    folder.dag("plain.py", "plain")
    store = await start_loader()
    before = store.files["uses.py"].source
    folder.write("_names.py", "NAME = 'two'")
    await store.until(lambda store: "two" in store.dags())
    assert store.dags() == {"two": "uses.py", "plain": "plain.py"}
    assert store.files["uses.py"].source != before
    assert store.counts["plain.py"] == 1


async def test_an_error_goes_away_when_a_helper_is_mended(folder, start_loader):
    folder.write("uses.py", "import _names\nfrom pubsubflow import DAG\nDAG(_names.NAME)\n")
    store = await start_loader()
    assert "No module named '_names'" in store.files["uses.py"].error
    folder.write("_names.py", "NAME = 1 / 0")
    await store.until(lambda store: "ZeroDivisionError" in store.files["uses.py"].error)
    folder.write("_names.py", "NAME = 'good'")
    await store.until(lambda store: store.dags() == {"good": "uses.py"})


async def test_a_dag_id_taken_twice_goes_to_the_other_file_when_it_is_free(folder, start_loader):
    first = folder.dag("a.py", "same")
    folder.dag("b.py", "same")
    store = await start_loader()
    assert store.dags() == {"same": "a.py"}
    assert "defined by a.py too" in store.files["b.py"].error
    first.unlink()
    await store.until(lambda store: store.dags() == {"same": "b.py"})
    folder.dag("a.py", "same")
    await store.until(lambda store: store.dags() == {"same": "a.py"})


async def test_a_mended_hang_does_not_wait_for_its_time_limit(folder, start_loader, tmp_path):
    os.mkfifo(tmp_path / "hangs")
    hanging = f"open({str(tmp_path / 'hangs')!r}, 'w').write('x')\nimport time\ntime.sleep(1000)\n"
    folder.write("a.py", hanging)
    store = await start_loader(wait=False, import_seconds=600)
    await anyio.Path(tmp_path / "hangs").read_text()
    folder.dag("b.py", "b")
    folder.dag("a.py", "a")
    await store.until(lambda store: store.dags() == {"a": "a.py", "b": "b.py"}, seconds=10)


async def test_the_ignore_file_is_followed(folder, start_loader):
    folder.dag("a.py", "a")
    folder.dag("b.py", "b")
    store = await start_loader()
    folder.write(".pubsubflowignore", "b.py\n")
    await store.until(lambda store: store.dags() == {"a": "a.py"})
    (folder.root / ".pubsubflowignore").unlink()
    await store.until(lambda store: store.dags() == {"a": "a.py", "b": "b.py"})


async def test_a_store_that_is_away_is_waited_for(folder, start_loader, make_store):
    folder.dag("a.py", "a")
    store = make_store()
    store.failures = [StoreUnavailable("away"), StoreUnavailable("away")]
    await start_loader(store)
    assert store.dags() == {"a": "a.py"}


async def test_an_unchanged_folder_costs_nothing(folder, start_loader):
    for number in range(50):
        folder.dag(f"f{number}.py", f"d{number}")
    store = await start_loader(rescan_seconds=0.05)
    folder.dag("last.py", "last")
    await store.until(lambda store: "last" in store.dags())
    assert set(store.counts.values()) == {1}


async def test_a_missing_folder_is_a_configuration_error(folder, fork_server, make_store, tmp_path):
    cache = BundleCache(tmp_path / "cache")
    with pytest.raises(ConfigError, match="does not exist"):
        Loader(folder.root / "nothing", fork_server=fork_server, store=make_store(), cache=cache)
