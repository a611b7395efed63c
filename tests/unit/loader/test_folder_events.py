"""Events of folders: whatever has been done to a tree, a change anywhere in it is noticed."""

import select
import shutil
import sys

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pubsubflow.loader.folder import Folder
from pubsubflow.loader.watch.folder_events import FolderEvents

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

_FOLDERS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
_STEPS = st.one_of(
    st.tuples(st.just("make"), _FOLDERS, _FOLDERS),
    st.tuples(st.just("move"), _FOLDERS, _FOLDERS),
    st.tuples(st.just("link"), _FOLDERS, _FOLDERS),
    st.tuples(st.just("remove"), _FOLDERS, _FOLDERS),
    st.tuples(st.just("move out"), _FOLDERS, _FOLDERS),
    st.tuples(st.just("move in"), _FOLDERS, _FOLDERS),
)


def _apply(root, elsewhere, step, first, second):
    one, two, outside = root / first, root / second, elsewhere / "kept"
    try:
        if step == "make":
            one.mkdir(parents=True)
        elif step == "move":
            one.rename(two)
        elif step == "link":
            two.symlink_to(one)
        elif step == "remove" and one.is_symlink():
            one.unlink()
        elif step == "remove":
            shutil.rmtree(one)
        elif step == "move out":
            one.rename(outside)
        else:
            outside.rename(one)
    except OSError:
        pass  # it does not fit to what there is


def _folders(root):
    """Return all folders, also where links lead to them, each once."""
    found, waiting = {}, [root]
    while waiting:
        folder = waiting.pop()
        if found.setdefault(folder.resolve(), folder) is folder:
            waiting += [each for each in folder.iterdir() if each.is_dir()]
    return list(found.values())


async def _drain(events):
    """Take the events that are there; the system has them by the time that a call returns."""
    while select.select([events._descriptor], [], [], 0)[0]:
        await events.wait()


async def _noticed(events):
    with anyio.fail_after(20):
        while not await events.wait():
            pass


@settings(max_examples=60, deadline=None)
@given(st.lists(_STEPS, max_size=7), st.integers(0, 7))
def test_a_change_in_any_folder_is_noticed(tmp_path_factory, steps, watched_after):
    place = tmp_path_factory.mktemp("place").resolve()
    root = place / "dags"
    root.mkdir()

    async def check():
        for step in steps[:watched_after]:
            _apply(root, place, *step)
        with FolderEvents(Folder(root).is_relevant) as events:
            events.add(str(root))
            for step in steps[watched_after:]:
                _apply(root, place, *step)
                (root / "step").touch()
                await _noticed(events)
            for folder in _folders(root):
                await _drain(events)
                (folder / "flow.py").touch()
                await _noticed(events)
            assert not events.ended

    anyio.run(check)


@pytest.mark.anyio
async def test_what_is_hidden_does_not_count(tmp_path):
    root = tmp_path.resolve()
    (root / ".git").mkdir()
    (root / "venv").mkdir()
    (root / "venv" / "pyvenv.cfg").touch()
    (root / "venv" / "lib").mkdir()
    with FolderEvents(Folder(root).is_relevant) as events:
        events.add(str(root))
        (root / ".git" / "index").touch()
        (root / "venv" / "lib" / "module.py").touch()
        (root / ".hidden").touch()
        assert not await events.wait()
        (root / ".pubsubflowignore").touch()
        await _noticed(events)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["removed", "moved", "missing"])
async def test_a_folder_that_goes_ends_them(tmp_path, how):
    root = tmp_path.resolve() / "dags"
    root.mkdir()
    with FolderEvents(Folder(root).is_relevant) as events:
        if how == "missing":
            root.rmdir()
        events.add(str(root))
        if how == "removed":
            root.rmdir()
        elif how == "moved":
            root.rename(tmp_path / "other")
        if how != "missing":
            await _noticed(events)
        assert events.ended


@pytest.mark.anyio
async def test_no_watches_left_is_an_error_of_the_system(tmp_path, monkeypatch):
    monkeypatch.setattr("pubsubflow.loader.watch.folder_events._WATCHED", 0)
    with FolderEvents(lambda _: True) as events, pytest.raises(OSError, match="nvalid"):
        events.add(str(tmp_path))
