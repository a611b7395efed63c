"""The bundle cache: whole bundles, what is lost or written to, and its limit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.model.source.bundles import Manifest, bundle_hash
from pubsubflow.runner.caches import bundle_cache
from pubsubflow.runner.caches.bundle_cache import BundleCache


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
    bundle_cache._remove_tree(tmp_path / "cache" / lost)
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
