"""What decides imports is compared by digests that change with it, and with nothing else."""

import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.loader.evidence import ALL, Evidence, environment_digest, signature
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.records import ImportSurroundings
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.model.alerts import FreshSpec
from pubsubflow.model.source.stored_imports import StoredImport
from pubsubflow.model.spec import DatasetSpec, LoadedFile
from support.specs import dag

NAMES = st.sampled_from(["A", "B", "C", "A=B", ""])
ENVIRONMENTS = st.dictionaries(NAMES, st.sampled_from(["", "x", "y", "B=x", "\udcff"]))


@given(st.sets(NAMES), ENVIRONMENTS, ENVIRONMENTS)
def test_a_digest_is_equal_if_and_only_if_what_was_read_is(names, before, after):
    evidence = Evidence(tuple(names), environment_digest(names, before, "5a" * 8))
    same = all(before.get(name) == after.get(name) for name in names)
    assert evidence.holds(after, signature) == same


@given(ENVIRONMENTS, ENVIRONMENTS)
def test_who_has_read_all_of_the_environment_depends_on_all_of_it(before, after):
    evidence = Evidence((ALL,), environment_digest((ALL,), before, "5a" * 8))
    assert evidence.holds(after, signature) == (before == after)


def test_values_cannot_be_compared_between_imports():
    assert environment_digest(["A"], {"A": "x"}, "0") != environment_digest(["A"], {"A": "x"}, "1")


@pytest.fixture
def read(tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "lake-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))

    def read(*, kinds=None, environment=None, root=tmp_path, **settings):
        return ImportSurroundings.read(
            root, kinds or {}, LoaderSettings(**settings), environment or {}
        )

    return read


def test_surroundings_are_those_of_before_while_nothing_of_them_changes(read, tmp_path):
    key = read().key
    (tmp_path / "site" / "notes.txt").write_text("no distribution")
    assert read().key == key
    assert read(environment={"LAKE": "1"}).key == key
    assert read(rescan_seconds=5, gather_milliseconds=5).key == key


def test_each_of_the_surroundings_counts(read, tmp_path, monkeypatch):
    keys = [
        read().key,
        read(kinds={"a": "airflow:x"}).key,
        read(root=tmp_path / "else").key,
        read(import_seconds=5).key,
        read(files_a_process=1).key,
        read(environment={"TZ": "UTC"}).key,
        read(environment={"PYTHONPATH": str(tmp_path)}).key,
    ]
    (tmp_path / "new_module.py").write_text("")
    keys.append(read(environment={"PYTHONPATH": str(tmp_path)}).key)
    (tmp_path / "site" / "lake-1.1.dist-info").mkdir()
    keys.append(read().key)
    (tmp_path / "site" / "lake-1.1.dist-info" / "RECORD").write_text("")  # installed anew
    keys.append(read().key)
    monkeypatch.setattr(sys, "version", "4.0")
    keys.append(read().key)
    assert len(set(keys)) == len(keys)


LOADED = LoadedFile("a.py", "bundle", (dag("a"), dag("b")))
RESULT = ImportResult(LOADED, evidence=Evidence((), environment_digest((), {}, "00" * 8)))


def stored(record, *dag_ids, bundles=("bundle",)):
    return {"a.py": StoredImport(record, dag_ids, bundles)}


def test_a_record_counts_for_what_is_stored_as_it_says():
    surroundings = ImportSurroundings("key", {})
    record = surroundings.record(RESULT, {"a.py": "hash"})
    restored = surroundings.restore(stored(record, "b", "a"))["a.py"]
    assert (restored.result, restored.found) == (RESULT, {"a.py": "hash"})
    moved = surroundings.restore(stored(record, "a", "b", bundles=("other",)))["a.py"]
    assert moved.result.loaded == msgspec.structs.replace(LOADED, bundle="other")
    assert surroundings.restore(stored(record, "a")) == {}
    assert surroundings.restore(stored(record, "a", "b", bundles=("x", "y"))) == {}
    assert surroundings.restore(stored(record[1:], "a", "b")) == {}
    assert surroundings.restore({"b.py": StoredImport(record, ("a", "b"), ("bundle",))}) == {}
    assert ImportSurroundings("other", {}).restore(stored(record, "a", "b")) == {}


def test_what_cannot_be_compared_has_no_record():
    surroundings = ImportSurroundings("key", {})
    fresh = LoadedFile("a.py", datasets=(DatasetSpec("x://a", fresh=FreshSpec(60.0)),))
    failed = LoadedFile("a.py", error="no")
    for loaded in (fresh, failed):
        assert surroundings.record(msgspec.structs.replace(RESULT, loaded=loaded), {}) is None
    assert surroundings.record(msgspec.structs.replace(RESULT, evidence=None), {}) is None
