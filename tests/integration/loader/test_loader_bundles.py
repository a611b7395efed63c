"""Bundles: what the loader ships of its folder, when an import is repeated, and what is refused."""

import os
import shutil
import socket

import anyio
import pytest
from anyio import from_thread, to_thread

from pubsubflow.loader import LoaderSettings, load_once, service
from pubsubflow.runner.caches import bundle_cache
from pubsubflow.runner.caches.bundle_cache import BundleCache
from support.signals import Signal

pytestmark = pytest.mark.anyio

READS = """
from pathlib import Path
from pubsubflow import DAG
HERE = Path(__file__).parent
{reads}
"""


def write_reading(folder, reads, file="flow.py"):
    folder.write(file, READS.format(reads=reads))


async def test_a_bundle_has_all_files_and_its_hash_follows_them(folder, start_loader):
    write_reading(folder, "DAG('d')")
    folder.write("late.py", "")
    folder.write("sql/query.sql", "SELECT 1")
    run = folder.write("run.sh", "")
    run.chmod(0o755)
    store = await start_loader()
    manifest = store.bundles[store.files["flow.py"].bundle]
    assert sorted(manifest.files) == ["flow.py", "late.py", "run.sh", "sql/query.sql"]
    assert [path for path, file in manifest.files.items() if file.executable] == ["run.sh"]
    before = store.files["flow.py"].bundle
    folder.write("sql/query.sql", "SELECT 2")
    await store.until(lambda store: store.files["flow.py"].bundle != before)
    assert store.text("flow.py", "sql/query.sql") == "SELECT 2"
    assert store.counts["flow.py"] == 1, "what the import did not read repeats no import"
    assert store.advanced[-1] == (store.files["flow.py"].bundle, ["flow.py", "late.py"])


@pytest.mark.parametrize(
    ("reads", "change"),
    [
        ("DAG((HERE / 'names.txt').read_text())", ("names.txt", "other")),
        ("DAG(open(HERE / 'names.txt').read())", ("names.txt", "other")),
        ("for path in HERE.glob('*.txt'): DAG(path.stem)", ("other.txt", "")),
        ("import os\nfor name in os.listdir(HERE / 'sub'): DAG(name)", ("sub/other", "")),
        (
            "try:\n    import optional\n    DAG(optional.NAME)\nexcept ImportError:\n    DAG('d')",
            ("optional.py", "NAME = 'other'"),
        ),
        (
            "try:\n    DAG((HERE / 'maybe').read_text())\nexcept OSError:\n    DAG('d')",
            ("maybe", "other"),
        ),
    ],
    ids=["read", "open", "glob", "listdir", "optional module", "optional file"],
)
async def test_what_an_import_read_repeats_it(folder, start_loader, reads, change):
    folder.write("names.txt", "d")
    folder.write("sub/d", "")
    write_reading(folder, reads)
    folder.dag("plain.py", "plain")
    store = await start_loader()
    before = store.files["flow.py"].source
    folder.write(*change)
    await store.until(lambda store: "other" in store.dags())
    assert store.files["flow.py"].source != before
    assert store.counts["plain.py"] == 1


async def test_a_folder_with_a_marker_is_a_bundle_of_its_own(folder, start_loader):
    folder.dag("flow.py", "d")
    folder.write("team/.pubsubflowbundle", "")
    folder.write("team/names.py", "NAME = 'of-the-team'")
    folder.write("team/flow.py", "import names\nfrom pubsubflow import DAG\nDAG(names.NAME)\n")
    store = await start_loader()
    assert store.dags() == {"d": "flow.py", "of-the-team": "team/flow.py"}
    own, team = (store.bundles[store.files[name].bundle] for name in ("flow.py", "team/flow.py"))
    assert (own.base, sorted(own.files)) == ("", ["flow.py"])
    assert (team.base, sorted(team.files)) == ("team", ["flow.py", "names.py"])
    before = store.files["flow.py"].bundle
    folder.write("team/names.py", "NAME = 'new'")
    await store.until(lambda store: "new" in store.dags())
    assert store.files["flow.py"].bundle == before


async def test_ignore_patterns_are_those_of_git(folder, start_loader):
    folder.dag("flow.py", "d")
    for name in ("a.csv", "keep.csv", "data/b.csv", "data/deep/c.txt", "notes/n.txt", "x/notes/n"):
        folder.write(name, "")
    folder.write(".pubsubflowignore", "*.csv\n!keep.csv\n/notes/\ndata/**/c.txt\n# comment\n\n")
    store = await start_loader()
    manifest = store.bundles[store.files["flow.py"].bundle]
    assert sorted(manifest.files) == ["flow.py", "keep.csv", "x/notes/n"]


async def test_an_error_says_that_what_is_missing_is_left_out(folder, start_loader):
    folder.write("flow.py", "import lib.helper\n")
    folder.write("data.py", "open(__file__.replace('data.py', 'x.csv'))\n")
    folder.write("lib/helper.py", "")
    folder.write("x.csv", "")
    folder.write(".pubsubflowignore", "lib/\n*.csv\n")
    store = await start_loader()
    error = store.files["flow.py"].error
    assert "No module named 'lib'; install it, move it into the DAGs folder" in error
    assert error.endswith(" (lib is left out: .pubsubflowignore names it)")
    assert store.files["data.py"].error.endswith(
        f"'{folder.root}/x.csv' (x.csv is left out: .pubsubflowignore names it)"
    )


@pytest.mark.parametrize(
    ("settings", "file", "text"),
    [
        ({"max_file_bytes": 2000}, "big.csv", "big.csv: the file has 3,000 bytes and 2,000 fit"),
        ({"max_bundle_bytes": 2000}, ".", "more than 2,000 bytes, the largest is big.csv"),
        ({"max_bundle_files": 2}, ".", "there are more than 2 files"),
    ],
)
async def test_a_limit_is_an_error_that_names_it_and_the_last_bundle_stays(
    folder, start_loader, settings, file, text
):
    folder.dag("flow.py", "d")
    folder.write("small.csv", "")
    store = await start_loader(**settings)
    before = store.files["flow.py"]
    big = folder.write("big.csv", "x" * 3000)
    await store.until(lambda store: file in store.files)
    assert text in store.files[file].error
    assert f"[loader] {next(iter(settings))}" in store.files[file].error
    assert store.files["flow.py"] == before
    big.unlink()
    await store.until(lambda store: file not in store.files)
    assert store.files["flow.py"] == before


async def test_a_single_file_leaves_a_folder_behind_that_is_too_large(folder, fork_server):
    path = folder.dag("flow.py", "d")
    folder.write("_help.py", "")
    folder.write("big.csv", "x" * 3000)
    (loaded,) = await load_once(
        path, fork_server=fork_server, settings=LoaderSettings(max_file_bytes=2000)
    )
    assert (loaded.file, loaded.error, [dag.dag_id for dag in loaded.dags]) == (
        "flow.py",
        None,
        ["d"],
    )
    folder.write("flow.py", "import _help\n")
    (loaded,) = await load_once(
        path, fork_server=fork_server, settings=LoaderSettings(max_file_bytes=2000)
    )
    assert "_help.py is left out: its folder is larger than a bundle may be" in loaded.error


async def test_odd_files_are_left_out_with_their_reason(folder, start_loader, tmp_path):
    folder.dag("flow.py", "d")
    os.mkfifo(folder.root / "pipe.py")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder.root / "socket.py"))
        (folder.root / "loop").symlink_to(folder.root / "loop")
        (folder.root / "loop.py").symlink_to(folder.root / "loop.py")
        (folder.root / "back").symlink_to(folder.root)
        (folder.root / "nowhere.py").symlink_to(tmp_path / "nothing")
        (folder.root / os.fsdecode(b"odd\xff.py")).write_text("")
        (folder.root / "crlf.py").write_bytes(b"from pubsubflow import DAG\r\nDAG('crlf')\r\n")
        (folder.root / "bom.py").write_bytes(
            b"\xef\xbb\xbffrom pubsubflow import DAG\nDAG('bom')\n"
        )
        (folder.root / "latin.py").write_bytes(b"x = '\xe9'\n")
        (folder.root / "nul.py").write_bytes(b"x = 1\x00\n")
        store = await start_loader()
    assert store.dags() == {"d": "flow.py", "crlf": "crlf.py", "bom": "bom.py"}
    errors = {file: loaded.error for file, loaded in store.files.items() if loaded.error}
    assert errors.keys() == {
        "latin.py", "nul.py", "pipe.py", "socket.py", "loop.py", "odd\\xff.py"
    }  # fmt: skip
    assert "it is not a regular file" in errors["pipe.py"]
    assert "its name is not UTF-8" in errors["odd\\xff.py"]
    assert "Too many levels of symbolic links" in errors["loop.py"]
    assert "latin.py" in errors["latin.py"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
async def test_a_file_that_may_not_be_read_is_an_error_of_that_file(folder, start_loader):
    folder.dag("flow.py", "d")
    folder.dag("secret.py", "s").chmod(0)
    store = await start_loader()
    assert store.dags() == {"d": "flow.py"}
    assert "Permission denied" in store.files["secret.py"].error


async def test_what_a_dataset_declares_in_one_place_is_kept_in_another(folder, start_loader):
    folder.write(
        "flow.py",
        """
        from pubsubflow import DAG, Dataset
        from pubsubflow_triggers import FileGlob

        Dataset("x://a", watch=FileGlob(pattern="/data/*.csv"), extra={"k": 1})
        DAG("d", schedule=Dataset("x://a", name="a"))
        """,
    )
    store = await start_loader()
    (dataset,) = store.files["flow.py"].datasets
    assert (dataset.name, dataset.extra) == ("a", {"k": 1})
    assert dataset.watch_name is not None
    assert dataset.watch_data


async def test_what_has_changed_is_stored_before_the_others_move_to_its_bundle(
    folder, start_loader, tmp_path
):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    folder.dag("changed.py", "changed")
    folder.dag("other.py", "other")
    store = await start_loader()
    folder.dag("changed.py", "changed", f"open({str(gate)!r}).read()")
    writer = await to_thread.run_sync(gate.open, "w")
    await store.until(lambda store: len(store.bundles) == 2)
    assert not store.advanced
    writer.close()
    await store.until(lambda store: store.advanced)
    assert store.advanced == [(store.files["changed.py"].bundle, ["other.py"])]
    assert store.counts_when_advanced == {"changed.py": 2, "other.py": 1}


async def test_files_of_the_bundle_before_are_not_looked_up_again(folder, start_loader):
    folder.dag("flow.py", "d")
    store = await start_loader()
    first = store.files["flow.py"].bundle
    folder.dag("more.py", "more")
    await store.until(lambda store: store.advanced)
    assert store.befores == [None, (first, store.bundles[first])]
    second = store.files["more.py"].bundle
    folder.write("data.txt", "")
    await store.until(lambda store: len(store.befores) == 3)
    assert store.befores[-1] == (second, store.bundles[second])


async def test_a_bundle_that_comes_back_is_stored_again(folder, start_loader):
    """What was in force once may be removed from the store meanwhile."""
    folder.dag("flow.py", "d")
    folder.write("data.txt", "one")
    store = await start_loader()
    first = store.files["flow.py"].bundle
    folder.write("data.txt", "two")
    await store.until(lambda store: store.files["flow.py"].bundle != first)
    del store.bundles[first]
    folder.write("data.txt", "one")
    await store.until(lambda store: store.files["flow.py"].bundle == first)
    assert first in store.bundles


async def test_a_cache_that_was_removed_is_made_anew(folder, start_loader, tmp_path):
    """As by what cleans up old files; also for what has not changed since."""
    folder.dag("flow.py", "d")
    folder.dag("plain.py", "plain")
    store = await start_loader()
    for each in (tmp_path / "cache").rglob("*"):  # bundles are read-only
        if each.is_dir():
            each.chmod(0o755)
    shutil.rmtree(tmp_path / "cache")
    folder.dag("flow.py", "other")
    await store.until(lambda store: "other" in store.dags())
    assert store.text("plain.py", "plain.py")
    assert sorted(store.dags()) == ["other", "plain"]


async def test_the_next_bundle_is_made_from_a_spare_folder(
    folder, start_loader, tmp_path, monkeypatch
):
    """Also what is imported in it sees all that lies beside it."""
    monkeypatch.setattr(bundle_cache, "_LEAST_FILES", 1)
    monkeypatch.setattr(bundle_cache, "_MOST_CHANGED_SHARE", 0)
    prepared = Signal()
    prepare = BundleCache.prepare

    def prepare_and_say(self, bundle, manifest):
        prepare(self, bundle, manifest)
        from_thread.run_sync(prepared.notify)

    monkeypatch.setattr(BundleCache, "prepare", prepare_and_say)
    folder.dag("flow.py", "d")
    folder.write("lib/start.py", "START = 'number-'")
    store = await start_loader()
    for name in ("two", "three"):
        spare = tmp_path / "cache/bundles" / f"spare-{store.files['flow.py'].bundle}"
        await prepared.wait_until(spare.exists)
        inode = spare.stat().st_ino
        text = f"from lib.start import START\nfrom pubsubflow import DAG\nDAG(START + {name!r})"
        folder.write(f"{name}.py", text)
        await store.until(lambda store, name=name: f"number-{name}" in store.dags())
        bundle = store.files[f"{name}.py"].bundle
        assert (tmp_path / "cache/bundles" / bundle).stat().st_ino == inode
        await store.until(lambda store, bundle=bundle: store.files["flow.py"].bundle == bundle)


async def test_a_change_does_not_wait_until_all_others_have_moved(
    folder, start_loader, make_store, tmp_path, monkeypatch
):
    monkeypatch.setattr(service, "_FILES_AN_ADVANCE", 1)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    store = make_store()
    advance, known, writers, opened = store.advance, [], [], anyio.Event()

    async def change_after_the_first(bundle, files):
        await advance(bundle, files)
        known.append("new.py" in store.files)
        if not writers:
            folder.dag("new.py", "new", f"open({str(gate)!r}).read()")
            writers.append(await to_thread.run_sync(gate.open, "w"))
            opened.set()

    monkeypatch.setattr(store, "advance", change_after_the_first)
    for name in ("a", "b", "c"):
        folder.dag(f"{name}.py", name)
    await start_loader(store)
    folder.write("data.txt", "")
    await opened.wait()
    writers[0].close()
    await store.until(lambda store: len({each.bundle for each in store.files.values()}) == 1)
    assert len(store.files) == 4
    assert known == [False, True, True, True]
