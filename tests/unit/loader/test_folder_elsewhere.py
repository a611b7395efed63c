"""Folders of bundles that lie elsewhere are files of the DAGs folder, below their names."""

from pathlib import Path

import pytest

from pubsubflow.errors import ConfigError
from pubsubflow.loader.folder import Folder

KINDS = {"team": "airflow:team"}


@pytest.fixture
def folders(tmp_path):
    dags, elsewhere = tmp_path / "dags", tmp_path / "elsewhere"
    for file in (dags / "native.py", elsewhere / "etl" / "a.py", elsewhere / "etl" / "_b.py"):
        file.parent.mkdir(exist_ok=True, parents=True)
        file.touch()
    (elsewhere / "packed.zip").touch()
    (dags / "packed.zip").touch()
    (elsewhere / ".airflowignore").write_text("lost.py\n")
    (elsewhere / "lost.py").touch()
    return dags, elsewhere


def test_files_are_named_below_the_bundle(folders):
    dags, elsewhere = folders
    folder = Folder(dags, KINDS, {"team": elsewhere})
    scan = folder.scan(100)
    # Archives, and files with a leading underscore, are those of the other kind alone.
    assert folder.dag_files(scan) == [
        "native.py",
        "team/etl/_b.py",
        "team/etl/a.py",
        "team/packed.zip",
    ]
    assert scan.base_of("team/etl/a.py") == "team"
    assert folder.path_of("team/etl/a.py") == elsewhere / "etl" / "a.py"
    assert folder.path_of("native.py") == dags / "native.py"
    assert list(scan.skipped) == ["team/lost.py"]


def test_changes_there_count(folders):
    dags, elsewhere = folders
    folder = Folder(dags, KINDS, {"team": elsewhere})
    place = folder.place()
    assert place.paths == (str(dags.resolve()), str(elsewhere.resolve()))
    assert folder.is_relevant(str(elsewhere / "etl" / "a.py"))
    assert not folder.is_relevant(str(elsewhere / ".git" / "index"))
    elsewhere.rename(elsewhere.with_name("gone"))
    assert folder.place() != place
    # An empty folder in its place would retire its DAGs.
    with pytest.raises(OSError, match="elsewhere"):
        folder.scan(100)


def test_a_limit_counts_all_files(folders):
    dags, elsewhere = folders
    assert Folder(dags, KINDS, {"team": elsewhere}).scan(4).cut


def test_a_name_that_is_taken(folders):
    dags, elsewhere = folders
    with pytest.raises(ConfigError, match="give its bundle another name"):
        Folder(dags, KINDS, {"native.py": Path(elsewhere)})
