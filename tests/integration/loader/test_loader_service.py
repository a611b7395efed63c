"""How the loader follows its folder."""

import os
import shutil

import anyio
import pytest

from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.loader import Loader
from pubsubflow.runner.caches.bundle_cache import BundleCache

pytestmark = pytest.mark.anyio


async def test_started_means_that_the_first_scan_is_stored(folder, start_loader):
    for number in range(20):
        folder.dag(f"f{number:02}.py", f"d{number}")
    folder.write("bad.py", "1 / 0")
    store = await start_loader()
    assert len(store.dags()) == 20
    assert "ZeroDivisionError" in store.files["bad.py"].error
    assert sum(map(len, store.saves)) == 21


async def test_what_changes_after_an_early_reading_is_read_again(folder, start_loader):
    for name in ("changed", "gone", "same"):
        folder.dag(f"{name}.py", name)

    def change():
        folder.dag("changed.py", "other")
        folder.dag("new.py", "new")
        (folder.root / "gone.py").unlink()

    store = await start_loader(after_reading=change)
    assert store.dags() == {"other": "changed.py", "new": "new.py", "same": "same.py"}
    assert sorted(store.bundles[store.files["same.py"].bundle].files) == sorted(store.files)


async def test_an_empty_folder_is_started_at_once(start_loader):
    store = await start_loader()
    assert store.saves == []


async def test_changes_are_seen_as_they_happen(folder, start_loader):
    folder.dag("a.py", "a")
    store = await start_loader()
    folder.dag("b.py", "b")
    await store.until(lambda store: "b" in store.dags())
    folder.dag("a.py", "a2")
    await store.until(lambda store: store.dags() == {"a2": "a.py", "b": "b.py"})
    (folder.root / "b.py").rename(folder.root / "c.py")
    await store.until(lambda store: store.dags() == {"a2": "a.py", "b": "c.py"})
    (folder.root / "a.py").unlink()
    await store.until(lambda store: store.dags() == {"b": "c.py"})
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
    for number in range(15):
        folder.dag(f"f{number}.py", f"d{number}")
    store = await start_loader(rescan_seconds=0.05)
    folder.dag("last.py", "last")
    await store.until(lambda store: "last" in store.dags())
    # The last one may have been seen before it was written to its end.
    assert {store.counts[file] for file in store.counts if file != "last.py"} == {1}


async def test_a_missing_folder_is_a_configuration_error(folder, fork_server, make_store, tmp_path):
    cache = BundleCache(tmp_path / "cache")
    with pytest.raises(ConfigError, match="does not exist"):
        Loader(folder.root / "nothing", fork_server=fork_server, store=make_store(), cache=cache)


def replaced(folder, text):
    folder.root.rename(folder.root.with_name("old"))
    folder.root.mkdir()
    folder.write("flow.py", text)


def recreated(folder, text):
    shutil.rmtree(folder.root)
    folder.root.mkdir()
    folder.write("flow.py", text)


DAG_TEXT = "from pubsubflow import DAG\nDAG({!r})\n"


@pytest.mark.parametrize("change", [replaced, recreated])
async def test_a_folder_that_is_replaced_is_read_again(folder, start_loader, change):
    folder.write("flow.py", DAG_TEXT.format("one"))
    store = await start_loader()
    change(folder, DAG_TEXT.format("two"))
    await store.until(lambda store: "two" in store.dags())
    folder.write("flow.py", DAG_TEXT.format("three"))
    await store.until(lambda store: "three" in store.dags())


async def test_a_link_that_moves_to_another_checkout_is_followed(folder, start_loader, tmp_path):
    trees = [tmp_path / name for name in ("one", "two")]
    for tree in trees:
        tree.mkdir()
        (tree / "flow.py").write_text(DAG_TEXT.format(tree.name))
    folder.root.rmdir()
    folder.root.symlink_to(trees[0])
    store = await start_loader()
    assert store.dags() == {"one": "flow.py"}
    (tmp_path / "next").symlink_to(trees[1])
    (tmp_path / "next").rename(folder.root)
    shutil.rmtree(trees[0])
    await store.until(lambda store: store.dags() == {"two": "flow.py"})
    assert store.bundles[store.files["flow.py"].bundle].root == str(folder.root)
    (trees[1] / "flow.py").write_text(DAG_TEXT.format("three"))
    await store.until(lambda store: store.dags() == {"three": "flow.py"})


async def test_a_folder_that_is_gone_is_an_error_and_its_dags_stay(folder, start_loader):
    folder.dag("a.py", "a")
    store = await start_loader()
    folder.root.rename(folder.root.with_name("away"))
    await store.until(lambda store: "." in store.files)
    assert store.files["."].error == (
        f"the DAGs folder {folder.root} cannot be read: No such file or directory"
    )
    assert store.dags() == {"a": "a.py"}
    folder.root.with_name("away").rename(folder.root)
    await store.until(lambda store: "." not in store.files)
    assert store.dags() == {"a": "a.py"}
    assert store.removed == ["."]


async def test_a_touched_folder_changes_nothing(folder, start_loader):
    folder.dag("a.py", "a")
    store = await start_loader()
    os.utime(folder.root)
    folder.root.chmod(0o775)
    folder.dag("b.py", "b")
    await store.until(lambda store: "b" in store.dags())
    assert store.counts == {"a.py": 1, "b.py": 1}


async def test_imports_that_hang_hold_up_neither_the_start_nor_others(folder, start_loader):
    for number in range(3):
        folder.write(f"a{number}.py", "import time\ntime.sleep(1000)\n")
    folder.dag("z.py", "z")
    store = await start_loader(import_seconds=600, slow_seconds=1, processes=2)
    await store.until(lambda store: store.dags() == {"z": "z.py"})
    assert not any(file.startswith("a") for file in store.files)


async def test_a_file_that_hung_before_does_not_hold_up_others_again(folder, start_loader):
    folder.write("a.py", "import time\ntime.sleep(1000)\n")
    store = await start_loader(import_seconds=2, slow_seconds=1, processes=1)
    await store.until(lambda store: "a.py" in store.files)
    folder.write("a.py", "import time\ntime.sleep(1001)\n")
    folder.dag("z.py", "z")
    await store.until(lambda store: "z" in store.dags())
    await store.until(lambda store: store.counts["a.py"] == 2)


async def test_an_import_that_failed_for_an_outside_reason_is_tried_again(
    folder, start_loader, tmp_path
):
    outside = tmp_path / "outside"
    folder.write("a.py", f"from pubsubflow import DAG\nDAG(open({str(outside)!r}).read())\n")
    folder.write("b.py", "x = (\n")
    store = await start_loader(retry_seconds=0.05)
    assert "No such file" in store.files["a.py"].error
    outside.write_text("there")
    await store.until(lambda store: store.dags() == {"there": "a.py"})
    assert store.counts["b.py"] == 1


async def test_a_reload_imports_all_files_again(folder, start_loader, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("one")
    folder.write("a.py", f"from pubsubflow import DAG\nDAG(open({str(outside)!r}).read())\n")
    store = await start_loader()
    outside.write_text("two")
    store.loader.reload()
    await store.until(lambda store: store.dags() == {"two": "a.py"})
