"""Networks of a cluster's machines: namespaces that can be cut off, or loopback.

Nothing of them has a name, and each lives for as long as a process that reads a pipe from us: when
the test ends, however it ends, they are gone with all links between them.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

SLOW_LINK = Path(__file__).with_name("slow_link.py")
_RULES = (
    "add table ip cut",
    "add chain ip cut in { type filter hook input priority 0; }",
    "add chain ip cut out { type filter hook output priority 0; }",
)
_HOLD = ("unshare", "--net", "--", "cat")


class Loopback:
    """All machines on loopback: none can be cut off."""

    separate = False

    def __init__(self, names: Sequence[str]):
        del names

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def address(self, _name: str) -> str:
        return "127.0.0.1"

    def prefix(self, _name: str) -> Sequence[str]:
        return ()


class Namespaces:
    """A network namespace for each machine, all on one bridge, which we reach, too.

    Args:
        names: Of the machines.
    """

    separate = True

    def __init__(self, names: Sequence[str]):
        self._numbers = {name: number for number, name in enumerate(names, start=10)}
        self._net = f"10.{random.randrange(200, 250)}.{random.randrange(1, 250)}"
        self._ours = f"psf{random.getrandbits(32):x}"
        self._holders: dict[str, subprocess.Popen] = {}
        self._slow: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """End what still runs in these networks, and with the last process they are gone."""
        for link in self._slow.values():
            link.kill()
            link.wait()
        self._end_processes()
        for holder in self._holders.values():
            holder.kill()
            holder.communicate()
        # It goes with its peer, but not at once.
        subprocess.run(("ip", "link", "delete", self._ours), check=False, capture_output=True)

    def address(self, name: str) -> str:
        return f"{self._net}.{self._numbers[name]}"

    def prefix(self, name: str) -> Sequence[str]:
        """Return what a command begins with that is to run on a machine."""
        return ("nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net", "--")

    def cut(self, name: str, others: Iterable[str]):
        """Drop all packets between a machine and others, silently."""
        places = ", ".join(map(self.address, others))
        self._run(name, "nft", f"add rule ip cut in ip saddr {{ {places} }} drop")
        self._run(name, "nft", f"add rule ip cut out ip daddr {{ {places} }} drop")

    def heal(self, name: str):
        """Take back all cuts of a machine."""
        self._run(name, "nft", "flush table ip cut")

    def slow_down(self, name: str, milliseconds: float):
        """Delay each packet to and from a machine.

        The kernel's own delay (tc netem) is a module that machines of tests lack.
        """
        port = self._port(name)
        command = (sys.executable, SLOW_LINK, port, f"slow{port}", str(milliseconds))
        self._run("hub", "ip", "link", "set", port, "nomaster")
        link = subprocess.Popen(
            [*self.prefix("hub"), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._slow[name] = link
        assert link.stdout.readline(), "the slow link did not begin"
        self._run("hub", "ip", "link", "set", f"slow{port}", "master", "bridge", "up")

    def speed_up(self, name: str):
        """Delay nothing any more."""
        link = self._slow.pop(name)
        link.communicate()  # its pipe ends, and with it the link
        self._run("hub", "ip", "link", "set", self._port(name), "master", "bridge")

    def _port(self, name: str) -> str:
        return f"p{self._numbers[name]}"

    def _build(self):
        for name in ("hub", *self._numbers):
            holder = subprocess.Popen(_HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._holders[name] = holder
            # It answers once it is in a network of its own.
            holder.stdin.write(b"\n")
            holder.stdin.flush()
            if not holder.stdout.readline():
                raise OSError("this machine makes no network namespaces")
        us, hub = self._ours, str(self._holders["hub"].pid)
        _run("ip", "link", "add", us, "type", "veth", "peer", "name", "us", "netns", hub)
        _run("ip", "address", "add", f"{self._net}.1/24", "dev", us)
        _run("ip", "link", "set", us, "up")
        self._run("hub", "ip", "link", "add", "bridge", "type", "bridge")
        self._run("hub", "ip", "link", "set", "bridge", "up")
        self._run("hub", "ip", "link", "set", "us", "master", "bridge", "up")
        for name in self._numbers:
            self._attach(name)

    def _attach(self, name: str):
        port, pid = self._port(name), str(self._holders[name].pid)
        self._run(
            *("hub", "ip", "link", "add", port, "type", "veth", "peer", "name", "eth", "netns", pid)
        )
        self._run("hub", "ip", "link", "set", port, "master", "bridge", "up")
        self._run(name, "ip", "link", "set", "lo", "up")
        self._run(name, "ip", "address", "add", f"{self.address(name)}/24", "dev", "eth")
        self._run(name, "ip", "link", "set", "eth", "up")
        for rule in _RULES:
            self._run(name, "nft", rule)

    def _run(self, where: str, *command: str):
        _run(*self.prefix(where), *command)

    def _end_processes(self):
        holders = {holder.pid for holder in self._holders.values()}
        ours = {_network(pid) for pid in holders} - {_network(os.getpid()), None}
        for pid in set(psutil.pids()) - holders:
            if _network(pid) in ours:
                os.kill(pid, signal.SIGKILL)


def can_separate() -> bool:
    """Whether this machine gives us networks of our own."""
    try:
        with Namespaces(("probe",)):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _network(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return None


def _run(*command: str):
    subprocess.run(command, check=True, capture_output=True, timeout=30)
