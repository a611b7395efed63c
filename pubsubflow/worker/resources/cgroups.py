"""Control groups (cgroup v2) for the processes of tasks that declare resources.

They are made below a group that is the worker's own: one that systemd has delegated to the service
(`Delegate=yes`), or the one that `[worker] cgroup` names. Nothing is made anywhere else.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import contextlib
import os
import sys
from itertools import count
from pathlib import Path

import structlog

from pubsubflow.model.wire.task_resources import ResourcesSpec

log = structlog.get_logger(__name__)

_MOUNT = Path("/sys/fs/cgroup")
_DELEGATED = ("user.delegate", "trusted.delegate")
_SERVERS = "pubsubflow-daemon"
_CONTROLLERS = ("memory", "cpu")
_PERIOD_MICROSECONDS = 100_000


class ControlGroup:
    """The control group of one process.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, resources: ResourcesSpec) -> None:
        """Make the group and set its limits.

        Raises:
            OSError: The kernel refuses it.
        """
        self.folder.mkdir()
        if resources.memory is not None:
            self._write("memory.max", str(resources.memory))
            self._write("memory.oom.group", "1")
            # What is swapped out counts against no limit otherwise. A kernel may have no swap.
            with contextlib.suppress(OSError):
                self._write("memory.swap.max", "0")
        if resources.cpu is not None:
            quota = max(1000, round(resources.cpu * _PERIOD_MICROSECONDS))
            self._write("cpu.max", f"{quota} {_PERIOD_MICROSECONDS}")

    def enter(self, pid: int) -> bool:
        """Put a process into the group, before it starts others; return whether that worked."""
        try:
            self._write("cgroup.procs", str(pid))
        except OSError as error:
            log.warning("worker.cgroup_refused", cgroup=str(self.folder), error=str(error))
            return False
        return True

    @property
    def peak_bytes(self) -> int:
        """The most memory that the group has held; 0 before Linux 5.19, which does not say."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "memory.peak").read_text())
        return 0

    @property
    def ran_out(self) -> bool:
        """Whether the kernel has ended a process of the group for its memory."""
        with contextlib.suppress(OSError, ValueError):
            lines = (self.folder / "memory.events").read_text().splitlines()
            events = dict(line.split() for line in lines)
            return any(int(events.get(name, 0)) for name in ("oom_kill", "oom_group_kill"))
        return False

    def close(self) -> bool:
        """Kill what is left in the group and remove it; return whether it is gone."""
        with contextlib.suppress(OSError):
            self._write("cgroup.kill", "1")
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:  # the kernel has not taken its last process away yet
            return False
        return True

    def _write(self, name: str, text: str) -> None:
        _write(self.folder / name, text)


class ControlGroups:
    """Makes and removes the control groups of a worker.

    Args:
        root: The group below which they are made.
        name: Distinguishes them from those of another worker.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self._name = name
        self._numbers = count(1)
        self._left: list[ControlGroup] = []

    @classmethod
    def find(cls, setting: str, name: str) -> "ControlGroups | None":
        """Return those of this worker; None where it has no group of its own.

        Args:
            setting: `auto`, `off`, or the folder of a group that is the worker's.
            name: Distinguishes its groups from those of another worker.
        """
        if setting == "off" or sys.platform != "linux":
            return None
        root = _delegated(own_group()) if setting == "auto" else Path(setting)
        if root is None:
            return None
        try:
            _prepare(root)
        except OSError as error:
            log.warning("worker.cgroup_refused", cgroup=str(root), error=str(error))
            return None
        log.info("worker.cgroup", cgroup=str(root))
        return cls(root, name)

    def open(self, resources: ResourcesSpec) -> ControlGroup | None:
        """Return a new group with these limits; None if the kernel refuses it."""
        self.sweep()
        group = ControlGroup(self.root / f"{self._name}-{next(self._numbers)}")
        try:
            group.open(resources)
        except OSError as error:
            log.warning("worker.cgroup_refused", cgroup=str(group.folder), error=str(error))
            self.close(group)
            return None
        return group

    def close(self, group: ControlGroup) -> None:
        """Remove a group, or remember to: its last process may take a moment to go."""
        if not group.close():
            self._left.append(group)

    def sweep(self) -> None:
        """Remove the groups that could not be removed before."""
        self._left = [group for group in self._left if not group.close()]


def own_group(text: str | None = None, mount: Path = _MOUNT) -> Path | None:
    """Return the folder of this process' control group; None where cgroup v2 is not in use.

    Args:
        text: The content of `/proc/self/cgroup`.
        mount: Where the file system of control groups is.
    """
    if text is None:
        try:
            text = Path("/proc/self/cgroup").read_text()
        except OSError:
            return None
    for line in text.splitlines():
        if line.startswith("0::/") and (mount / "cgroup.controllers").exists():
            return mount / line.removeprefix("0::/")
    return None


def _delegated(group: Path | None) -> Path | None:
    """Return the group that systemd has delegated, this one or one above it."""
    while group is not None and group not in (_MOUNT, group.parent):
        for attribute in _DELEGATED:
            with contextlib.suppress(OSError):
                if os.getxattr(group, attribute) == b"1" and os.access(group, os.W_OK):
                    return group
        group = group.parent
    return None


def _prepare(root: Path) -> None:
    """Enable limits for groups below `root`.

    A group that gives its controllers on may have no processes of its own: those that are there,
    which are the service's, move to a group beside those of tasks.

    Raises:
        OSError: The kernel refuses it.
    """
    wanted = [f"+{name}" for name in _CONTROLLERS]
    enabled = (root / "cgroup.subtree_control").read_text().split()
    if all(name in enabled for name in _CONTROLLERS):
        return
    servers = root / _SERVERS
    for process in (root / "cgroup.procs").read_text().split():
        servers.mkdir(exist_ok=True)
        with contextlib.suppress(ProcessLookupError):
            _write(servers / "cgroup.procs", process)
    _write(root / "cgroup.subtree_control", " ".join(wanted))


def _write(file: Path, text: str) -> None:
    # Never created: a file that is not there belongs to a controller that is not there.
    with file.open("r+", encoding="ascii") as stream:
        stream.write(text)
