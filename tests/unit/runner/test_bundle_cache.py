"""The bundle cache: whole bundles, what is lost or written to, and its limit."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.model.source.bundles import Manifest, bundle_hash
from pubsubflow.runner.caches import bundle_cache
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.caches.link_folders import remove_tree


@pytest.fixture
def cache(tmp_path):
    with_files = BundleCache(tmp_path / "cache")
    yield with_files
    with_files.close()


def _bundle(cache, **texts):
    files = {
        name.replace("_", "/"): cache.add(text.encode(), executable=text.startswith("#!"))
        for name, text in texts.items()
    }
    return bundle_hash("", files), Manifest("/dags", "", files)


def _texts(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _content(tmp_path, file):
    return tmp_path / "cache" / "files" / file.hash[:2] / file.hash


def test_a_bundle_is_a_folder_of_read_only_files(cache):
    bundle, manifest = _bundle(cache, flow="1", lib_a="2", lib_b="#!3")
    folder = cache.open(bundle, manifest)
    assert _texts(folder) == {"flow": "1", "lib/a": "2", "lib/b": "#!3"}
    assert (folder / "flow").stat().st_mode & 0o777 == 0o444
    assert (folder / "lib/b").stat().st_mode & 0o777 == 0o555
    assert folder.stat().st_mode & 0o777 == 0o555
    bundle, manifest = _bundle(cache, in_only_flow="1")
    folder = cache.open(bundle, manifest)
    assert (folder / "in").stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("harm", ["written", "removed"])
def test_a_file_that_is_not_as_it_was_is_named_and_replaced(cache, tmp_path, harm):
    bundle, manifest = _bundle(cache, flow="1", other="2")
    path = _content(tmp_path, manifest.files["flow"])
    if harm == "written":
        path.chmod(0o644)
        path.write_text("!")
    else:
        path.unlink()
    with pytest.raises(FileNotFoundError, match="missing or was changed") as raised:
        cache.open(bundle, manifest)
    assert raised.value.filename == str(path)
    assert not any((tmp_path / "cache" / "new").iterdir())
    assert _bundle(cache, flow="1")[1].files["flow"] == manifest.files["flow"]
    assert _texts(cache.open(bundle, manifest)) == {"flow": "1", "other": "2"}


@pytest.mark.parametrize("harm", ["written", "removed"])
def test_a_folder_that_is_not_as_it_was_is_made_anew(cache, monkeypatch, harm):
    bundle, manifest = _bundle(cache, lib_flow="1")
    folder = cache.open(bundle, manifest)
    (folder / "lib").chmod(0o755)
    (folder / "lib/flow").unlink()
    if harm == "written":
        (folder / "lib/flow").write_text("!")
    # It has been looked at a moment ago.
    monkeypatch.setattr(bundle_cache, "_CHECK_SECONDS", -1.0)
    assert _texts(cache.open(bundle, manifest)) == {"lib/flow": "1"}


@pytest.mark.parametrize("lost", ["bundles", "."])
def test_a_folder_that_was_removed_is_made_at_once(cache, tmp_path, lost):
    bundle, manifest = _bundle(cache, flow="1")
    cache.open(bundle, manifest)
    remove_tree(tmp_path / "cache" / lost)
    again, _ = _bundle(cache, flow="1")
    assert again == bundle
    assert _texts(cache.open(bundle, manifest)) == {"flow": "1"}


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("pubsubflow.runner.caches.content_files._READ_BYTES", 4)
    source = tmp_path / "source"
    for size in range(10):
        source.write_bytes(b"x" * size)
        found = cache.ingest(source, 6)
        assert (found is None) == (size > 6)
        if found is not None:
            assert cache.read(found) == source.read_bytes()
            assert found == cache.add(b"x" * size)
    assert not any((tmp_path / "cache" / "new").iterdir())


def _bytes(place):
    return sum(path.stat().st_size for path in (place / "files").rglob("*") if path.is_file())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.integers(1, 400),
)
def test_what_is_in_use_stays_and_the_rest_fits(tmp_path_factory, steps, limit):
    place = tmp_path_factory.mktemp("cache")
    cache = BundleCache(place, max_bytes=limit)
    for number, keep in enumerate(steps):
        with cache.filling():
            bundle, manifest = _bundle(cache, flow=f"{number:0100}")
            cache.open(bundle, manifest)
        if not keep:
            cache.release({bundle})
        cache.trim()
        held = set(cache._held)
        assert held <= {path.name for path in (place / "bundles").iterdir()}
        assert _bytes(place) <= max(limit, 100 * len(held))
    cache.close()


def test_what_another_process_adds_counts_after_a_sixteenth_of_the_limit(tmp_path):
    cache, other = (BundleCache(tmp_path, max_bytes=1600) for _ in range(2))
    cache.trim()
    for number in range(20):
        bundle, manifest = _bundle(other, flow=f"{number:0100}")
        other.open(bundle, manifest)
        other.release(())
    cache.add(b"x" * 100)
    cache.trim()
    assert _bytes(tmp_path) == 2100
    cache.add(b"y")
    cache.trim()
    assert _bytes(tmp_path) <= 1600


@pytest.fixture
def spares(monkeypatch):
    """Have spare folders made of small bundles, too."""
    monkeypatch.setattr(bundle_cache, "_LEAST_FILES", 1)
    monkeypatch.setattr(bundle_cache, "_MOST_CHANGED_SHARE", 0)


_names = st.sampled_from(["a", "a/b", "a/b/c", "a/d", "e/f/g", "e/f/h", "i"])
_folders = st.dictionaries(_names, st.sampled_from(["1", "2", "#!3"]), min_size=1).filter(
    lambda texts: not any(f"{one}/" in other for one in texts for other in texts)
)


@pytest.mark.usefixtures("spares")
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(_folders, min_size=2, max_size=4))
def test_a_folder_that_is_made_from_a_spare_one_is_as_if_made_anew(tmp_path_factory, steps):
    place = tmp_path_factory.mktemp("cache")
    cache = BundleCache(place)
    spare = None
    for texts in steps:
        manifest = _manifest(cache, texts)
        bundle = bundle_hash("", manifest.files)
        made_before = (place / "bundles" / bundle).exists()
        folder = cache.open(bundle, manifest)
        assert _texts(folder) == texts
        folders = {path for path in (folder, *folder.rglob("*")) if path.is_dir()}
        assert folders == {folder / parent for name in texts for parent in Path(name).parents}
        assert {path.stat().st_mode & 0o777 for path in folders} == {0o555}
        if spare is not None and not made_before:
            assert folder.stat().st_ino == spare
        cache.prepare(bundle, manifest)
        cache.release({bundle})
        path = place / "bundles" / f"spare-{bundle}"
        assert _texts(path) == texts
        spare = path.stat().st_ino
    cache.close()
    remove_tree(place)


def _manifest(cache, texts):
    files = {
        name: cache.add(text.encode(), executable=text.startswith("#!"))
        for name, text in texts.items()
    }
    return Manifest("/dags", "", files)


@pytest.mark.usefixtures("spares")
@pytest.mark.parametrize("harm", ["written", "removed", "folder removed", "taken"])
def test_a_spare_folder_that_is_not_as_it_was_is_not_used(cache, tmp_path, harm):
    bundle, manifest = _bundle(cache, lib_flow="1", other="2")
    cache.open(bundle, manifest)
    cache.prepare(bundle, manifest)
    spare = tmp_path / "cache" / "bundles" / f"spare-{bundle}"
    if harm == "folder removed":
        remove_tree(spare)
    elif harm == "taken":
        another = BundleCache(tmp_path / "cache")
        another.prepare(bundle, manifest)
        assert another.open(*_bundle(another, lib_flow="1", other="3"))
        another.close()
    else:
        (spare / "lib").chmod(0o755)
        (spare / "lib/flow").unlink()
        if harm == "written":
            (spare / "lib/flow").write_text("!")
    after, manifest = _bundle(cache, lib_flow="1", new="2")
    assert _texts(cache.open(after, manifest)) == {"lib/flow": "1", "new": "2"}
    assert not spare.exists()
    assert not any((tmp_path / "cache" / "new").iterdir())


@pytest.mark.usefixtures("spares")
def test_a_spare_folder_of_the_same_bundle_is_used_again_by_the_next_process(cache, tmp_path):
    bundle, manifest = _bundle(cache, flow="1")
    cache.open(bundle, manifest)
    cache.prepare(bundle, manifest)
    cache.close()
    path = tmp_path / "cache" / "bundles" / f"spare-{bundle}"
    inode = path.stat().st_ino
    following = BundleCache(tmp_path / "cache")
    following.open(bundle, manifest)
    following.trim()
    following.prepare(bundle, manifest)
    assert path.stat().st_ino == inode
    after, other = _bundle(following, flow="2")
    assert following.open(after, other).stat().st_ino == inode
    following.close()


@pytest.mark.usefixtures("spares")
def test_a_spare_folder_goes_when_no_process_holds_it(cache, tmp_path):
    bundle, manifest = _bundle(cache, flow="1")
    cache.open(bundle, manifest)
    cache.prepare(bundle, manifest)
    another = BundleCache(tmp_path / "cache")
    another.trim()
    place = tmp_path / "cache"
    assert (place / "bundles" / f"spare-{bundle}").exists()
    cache.release(())
    BundleCache(tmp_path / "cache").trim()
    assert {path.name for path in (place / "bundles").iterdir()} == {bundle}
    assert {path.name for path in (place / "locks").iterdir()} == {bundle}


def test_small_bundles_and_such_that_differ_much_have_no_use_of_a_spare(cache, tmp_path):
    texts = {f"f{number}": str(number % 7) for number in range(1_000)}
    manifest = _manifest(cache, texts)
    bundle = bundle_hash("", manifest.files)
    cache.open(bundle, manifest)
    cache.prepare(bundle, manifest)
    spare = tmp_path / "cache" / "bundles" / f"spare-{bundle}"
    inode = spare.stat().st_ino
    small = _manifest(cache, {"flow": "1"})
    folder = cache.open(bundle_hash("", small.files), small)
    assert folder.stat().st_ino != inode
    cache.prepare(bundle_hash("", small.files), small)
    assert {path.name for path in spare.parent.glob("spare-*")} == {spare.name}


_KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from pubsubflow.model.source.bundles import Manifest, bundle_hash
from pubsubflow.runner.caches import bundle_cache
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.caches.link_folders import remove_tree

bundle_cache._LEAST_FILES, bundle_cache._MOST_CHANGED_SHARE = 1, 0
STEPS = ("os.link", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir")
before, after = {"a/b": "1", "c": "2", "d": "3"}, {"a/e": "1", "f/g": "4", "d": "3"}

def opened(cache, texts):
    files = {name: cache.add(text.encode()) for name, text in texts.items()}
    manifest = Manifest("/dags", "", files)
    bundle = bundle_hash("", files)
    folder = cache.open(bundle, manifest)
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert found == texts, (found, texts)
    assert all(any(path.iterdir()) for path in folder.rglob("*") if path.is_dir())
    return bundle, manifest

def killed_at(place, number):
    cache = BundleCache(place)
    bundle, manifest = opened(cache, before)
    left = [number]

    def hook(event, arguments):
        if event in STEPS:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    cache.prepare(bundle, manifest)
    opened(cache, after)

for number in count():
    place = Path(sys.argv[1], str(number))
    pid = os.fork()
    if not pid:
        killed_at(place, number)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    following = BundleCache(place)
    for texts in (before, after):
        bundle, manifest = opened(following, texts)
    following.trim()
    following.prepare(bundle, manifest)
    opened(following, before | {"h": "5"})
    for spare in (place / "bundles").glob("spare-*"):
        assert (place / "locks" / spare.name).exists(), spare
    following.close()
    remove_tree(place)
    if not status:
        break
print(number)
"""


def test_a_process_that_is_killed_at_any_step_leaves_whole_folders(tmp_path):
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(ended.stdout.split()[-1]) > 20
