"""The account of user code: which one it is, and what is made for it."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from pubsubflow.errors import ConfigError
from pubsubflow.runner import task_account
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.task_account import TaskAccount, choose_task_account, make_folders

HOME = Path("/srv/pubsubflow")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def accounts(monkeypatch):
    known = {}
    monkeypatch.setattr(task_account, "_find", known.get)
    return known


def test_roots_tasks_have_a_user_id_of_their_own_that_stays(root, accounts):
    first = choose_task_account("auto", HOME, [])
    assert first == choose_task_account("auto", HOME, [])
    assert first.uid == first.gid
    assert 61_184 <= first.uid < 65_519
    other = choose_task_account("auto", HOME, [first.uid])
    assert other.uid not in (0, first.uid)
    assert choose_task_account("auto", Path("/srv/other"), []).uid != first.uid


def test_an_account_named_pubsubflow_is_taken_unless_it_is_postgres(root, accounts):
    accounts["pubsubflow"] = TaskAccount("pubsubflow", 990, 980)
    assert choose_task_account("auto", HOME, []).uid == 990
    assert choose_task_account("auto", HOME, [990]).uid > 61_000


@pytest.mark.parametrize("wanted", ["", "root"])
def test_nothing_is_roots_own(root, wanted):
    assert choose_task_account(wanted, HOME, []) is None


def test_an_account_that_cannot_be_is_refused_with_the_remedy(root, accounts):
    with pytest.raises(ConfigError, match="useradd --system etl"):
        choose_task_account("etl", HOME, [])
    accounts["postgres"] = TaskAccount("postgres", 101, 104)
    with pytest.raises(ConfigError, match="the account of Postgres"):
        choose_task_account("postgres", HOME, [101])


def test_only_root_becomes_another(monkeypatch, accounts):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    accounts["etl"] = TaskAccount("etl", 990, 980)
    accounts["me"] = TaskAccount("me", 1000, 1000)
    assert choose_task_account("auto", HOME, []) is None
    assert choose_task_account("me", HOME, []) is None
    with pytest.raises(ConfigError, match="start it as root"):
        choose_task_account("etl", HOME, [])


def test_why_an_account_cannot_run_python_is_said(tmp_path):
    me = TaskAccount("me", os.geteuid(), os.getegid())
    assert me.refusal([str(tmp_path)]) is None
    missing = str(tmp_path / "missing")
    assert missing in me.refusal([missing])


@as_root
def test_folders_of_an_account_are_closed_to_all_others(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(task_account, "_CACHES", (str(tmp_path),))
    account = make_folders(TaskAccount("x", 61_300, 61_300), HOME)
    assert make_folders(account, HOME) == account
    shared, own = Path(account.shared).stat(), Path(account.home).stat()
    assert (shared.st_uid, shared.st_gid, stat.S_IMODE(shared.st_mode)) == (0, 61_300, 0o710)
    assert (own.st_uid, own.st_gid, stat.S_IMODE(own.st_mode)) == (61_300, 61_300, 0o700)
    # Another's folder of that name is not used.
    os.chown(account.shared, 1000, -1)
    with pytest.raises(ConfigError, match="make one of them writable"):
        make_folders(account, HOME)


@as_root
def test_a_link_out_of_the_dags_folder_does_not_copy_what_the_account_may_not_read(tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    for name, mode in (("key", 0o600), ("open", 0o644)):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
        (dags / name).symlink_to(tmp_path / name)
    (dags / "own").write_text("own")
    (dags / "own").chmod(0o600)
    (dags / "link").symlink_to("own")
    cache = BundleCache(tmp_path / "cache", account=TaskAccount("x", 61_300, 61_300))
    for name in ("open", "own", "link"):
        assert cache.ingest(dags / name, 100, dags).size
    with pytest.raises(PermissionError, match="account x of tasks may not read"):
        cache.ingest(dags / "key", 100, dags)
    assert BundleCache(tmp_path / "roots").ingest(dags / "key", 100, dags).size == 3
