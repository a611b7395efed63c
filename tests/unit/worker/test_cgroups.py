"""What is written into the file system of control groups; a folder stands for it."""

from pathlib import Path

import pytest

from pubsubflow.model.wire.task_resources import ResourcesSpec
from pubsubflow.worker.resources.cgroups import ControlGroups, own_group

KERNELS_FILES = (
    *("cgroup.procs", "cgroup.kill", "cgroup.subtree_control", "memory.max", "memory.swap.max"),
    *("memory.oom.group", "memory.events", "memory.peak", "cpu.max"),
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A group as the kernel makes it: with files, which go with it."""
    mkdir, rmdir = Path.mkdir, Path.rmdir

    def make(folder, *arguments, **more):
        mkdir(folder, *arguments, **more)
        for name in KERNELS_FILES:
            (folder / name).touch()

    def remove(folder):
        for name in KERNELS_FILES:
            (folder / name).unlink()
        rmdir(folder)

    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "rmdir", remove)
    folder = tmp_path / "delegated"
    folder.mkdir()
    return folder


def test_a_task_has_a_group_with_its_limits_and_leaves_none_behind(root):
    (root / "cgroup.procs").write_text("41")
    groups = ControlGroups.find(str(root), "w1")
    # The daemon's own processes make room for the controllers.
    assert (root / "pubsubflow-daemon" / "cgroup.procs").read_text() == "41"
    assert (root / "cgroup.subtree_control").read_text() == "+memory +cpu"

    group = groups.open(ResourcesSpec(memory=1 << 30, cpu=1.5))
    written = {name: (group.folder / name).read_text() for name in KERNELS_FILES}
    assert written["memory.max"] == str(1 << 30)
    assert written["memory.oom.group"] == "1"
    assert written["memory.swap.max"] == "0"
    assert written["cpu.max"] == "150000 100000"
    assert group.enter(42)
    assert (group.folder / "cgroup.procs").read_text() == "42"
    assert not group.ran_out
    (group.folder / "memory.events").write_text("max 7\noom 1\noom_kill 2\noom_group_kill 1\n")
    (group.folder / "memory.peak").write_text(str(1 << 30))
    assert group.ran_out
    assert group.peak_bytes == 1 << 30
    groups.close(group)
    assert not group.folder.exists()


def test_a_group_that_is_still_busy_is_removed_later(root, monkeypatch):
    groups = ControlGroups.find(str(root), "w1")
    group = groups.open(ResourcesSpec(cpu=1))

    def busy(folder):
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rmdir", busy)
        groups.close(group)
    assert group.folder.exists()
    groups.sweep()
    assert not group.folder.exists()


def test_where_nothing_is_delegated_nothing_is_made(tmp_path):
    assert ControlGroups.find(str(tmp_path / "gone"), "w1") is None
    assert ControlGroups.find("off", "w1") is None
    assert own_group("4:memory:/x\n0::/unit\n", tmp_path) is None
    (tmp_path / "cgroup.controllers").touch()
    assert own_group("0::/unit.service\n", tmp_path) == tmp_path / "unit.service"
