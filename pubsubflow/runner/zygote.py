"""The zygote: the warm process from which all processes for user code are forked.

It is single-threaded and does nothing but fork and reap. It is started by `ForkServer` as
`python -m pubsubflow.runner.zygote FD`. On the control socket:

- first, one frame `Setup`;
- each request is 8 bytes (its number) with three file descriptors: the child's socket, stdout and
  stderr. The child reads what to call as the first frame from its own socket;
- a request without file descriptors has it import what is left, see `ZygoteSetup.later`;
- each answer is a `STATUS`: number, pid, exit code. Number 0 stands for an exit, or with pid 0 for
  the zygote being ready. A negative pid is the errno of a fork that failed.
"""

import atexit
import contextlib
import gc
import importlib
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO

import msgspec

from pubsubflow.runner.frames import receive_frame
from pubsubflow.runner.parent_death import end_with_parent
from pubsubflow.runner.process_state import adopt_orphans, kill_orphans
from pubsubflow.runner.task_account import TaskAccount, set_inspectable

_OOM_SCORE = "500"

REQUEST = struct.Struct("<q")
STATUS = struct.Struct("<qii")
CHILD_FDS = 3


class ZygoteSetup(msgspec.Struct, frozen=True, array_like=True):
    """The first frame to the zygote.

    Attributes:
        parent: Pid of the daemon.
        path: The daemon's `sys.path`.
        python_path: The value of PYTHONPATH that children see.
        preload: Modules to import before the first fork.
        later: Modules to import on request, once no start waits for it any more.
        open_files: Soft limit of open files of the children; 0 for the daemon's own.
        account: The account of the children; None for the daemon's own.
    """

    parent: int
    path: list[str]
    python_path: str | None
    preload: list[str]
    open_files: int = 0
    account: TaskAccount | None = None
    later: list[str] = []


class ChildCall(msgspec.Struct, frozen=True, array_like=True):
    """The first frame to a child: `package.module:function`, and the argument for it."""

    target: str
    argument: bytes


class Zygote:
    """Forks on request and reports every exit.

    Args:
        control: The stream to the daemon.
        wake: A pair; the second end gets a byte per signal, see `signal.set_wakeup_fd`.
        lifeline: A pipe whose writing end only this process has.
        setup: What the daemon has it do.
    """

    def __init__(
        self,
        control: socket.socket,
        wake: tuple[socket.socket, socket.socket],
        lifeline: tuple[int, int],
        setup: ZygoteSetup,
    ) -> None:
        self._account = setup.account
        self._later = setup.later
        self._control = control
        self._wake, self._wake_writer = wake
        self._lifeline = lifeline
        self._pid = os.getpid()
        self._children: set[int] = set()

    def serve(self) -> Callable[[], None] | None:
        """Fork and reap until the daemon is gone.

        Returns:
            In a child: what it is to do. In the zygote itself: None.
        """
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        self._report(0, 0, 0)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if self._wake.fileno() in ready:
                if signal.SIGTERM in self._wake.recv(4096):
                    return None
                self._reap()
            if self._control.fileno() in ready:
                try:
                    data, fds, _, _ = socket.recv_fds(self._control, REQUEST.size, CHILD_FDS)
                except ConnectionResetError:  # the daemon has ended with a report of ours unread
                    return None
                if not data:
                    return None
                if not fds:
                    self._import_later()
                    continue
                child = self._fork(REQUEST.unpack(data)[0], fds)
                if child is not None:
                    return child

    def end(self) -> None:
        """Kill all children with their groups and wait for them."""
        for pid in self._children:
            kill_group(pid, signal.SIGKILL)
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        kill_orphans(())

    def _import_later(self) -> None:
        modules, self._later = self._later, []
        for module in modules:
            # A child that needs it will import it, and say why that fails.
            with contextlib.suppress(ImportError, OSError):
                importlib.import_module(module)
        _settle()

    def _fork(self, number: int, fds: list[int]) -> Callable[[], None] | None:
        # A signal between the fork and the child's own handlers would wake the zygote's pipe, which
        # the child still shares: all are blocked until it has its own.
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            return lambda: self._be_child(fds, signals)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            self._children.add(pid)
        self._report(number, pid, 0)
        return None

    def _be_child(self, fds: list[int], signals: set[signal.Signals | int]) -> None:
        """Give up all that belongs to the zygote, then call what the first frame names."""
        os.setsid()
        set_inspectable(allowed=True)  # or the next file would be root's
        with contextlib.suppress(OSError):
            # When memory runs out, the kernel ends user code rather than the daemon or its servers.
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals - {signal.SIGTERM, signal.SIGINT})
        for sock in (self._control, self._wake, self._wake_writer):
            sock.close()
        reader, writer = self._lifeline
        os.close(writer)
        if self._account is not None:
            _give_pipes(fds[1:], self._account)
            self._account.enter()
        # After that: the kernel forgets it when a process changes its account.
        end_with_parent(self._pid, reader)
        adopt_orphans()  # what its descendants leave stays below it until it ends itself
        if sys.platform == "linux":
            os.close(reader)
        channel, stdout, stderr = fds
        for fd, standard in ((stdout, 1), (stderr, 2)):
            os.dup2(fd, standard)
            os.close(fd)
        sys.stdout, sys.stderr = _by_lines(1), _by_lines(2)
        sock = socket.socket(fileno=channel)
        gc.enable()
        with contextlib.suppress(EOFError):
            call = msgspec.msgpack.decode(receive_frame(sock), type=ChildCall)
            module, _, function = call.target.partition(":")
            getattr(importlib.import_module(module), function)(sock, call.argument)

    def _reap(self) -> None:
        """Report every exit; what is left of the child's group goes with it."""
        for pid in tuple(self._children):
            gone, status = _wait_killing_group(pid)
            if gone:
                self._children.discard(pid)
                self._report(0, pid, os.waitstatus_to_exitcode(status))
        # What a child left in a session of its own has become ours with the child's end.
        kill_orphans(self._children)

    def _report(self, number: int, pid: int, status: int) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(STATUS.pack(number, pid, status))


def _give_pipes(fds: list[int], account: TaskAccount) -> None:
    """Give pipes that are the child's alone to its account, which may open them as /dev/stdout."""
    own = [os.fstat(fd) for fd in (1, 2)]
    for fd in fds:
        facts = os.fstat(fd)
        if stat.S_ISFIFO(facts.st_mode) and not any(os.path.samestat(facts, each) for each in own):
            os.fchown(fd, account.uid, account.gid)


def _by_lines(fd: int) -> TextIO:
    """Open a standard stream that is line-buffered, also into a pipe."""
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def kill_group(pid: int, number: int) -> None:
    """Send a signal to a child's process group, or to the child if it has no group yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_killing_group(pid: int) -> tuple[int, int]:
    """Reap the child if it has exited, after killing the rest of its group."""
    if hasattr(os, "waitid"):
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PID, pid, flags) is None:
            return 0, 0
        kill_group(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)
    gone, status = os.waitpid(pid, os.WNOHANG)
    if gone:
        kill_group(pid, signal.SIGKILL)
    return gone, status


def _prepare(control: socket.socket) -> Zygote:
    setup = msgspec.msgpack.decode(receive_frame(control), type=ZygoteSetup)
    sys.path[:] = setup.path
    if setup.python_path is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = setup.python_path
    wake, wake_writer = socket.socketpair()
    wake_writer.setblocking(False)  # noqa: FBT003 - the standard library's signature
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
    end_with_parent(setup.parent, None, signal.SIGTERM)
    if setup.open_files:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (setup.open_files, hard))
    adopt_orphans()
    set_inspectable(allowed=False)  # who controls it controls all its children
    for module in setup.preload:
        importlib.import_module(module)
    return Zygote(control, (wake, wake_writer), os.pipe(), setup)


def _settle() -> None:
    """Keep the collector from what is loaded: in the children it would copy the shared pages."""
    gc.collect()
    gc.freeze()


def _run_child(child: Callable[[], None]) -> NoReturn:
    """Run a child and exit as an interpreter would, but for what the zygote has set up."""
    code = 0
    try:
        child()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - the process ends here, and says why
        traceback.print_exc()
        code = 1
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit would skip what user code registered
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    """Serve the daemon over the socket whose file descriptor is the first argument."""
    gc.disable()
    zygote = _prepare(socket.socket(fileno=int(sys.argv[1])))
    _settle()
    child = zygote.serve()
    if child is not None:
        _run_child(child)
    zygote.end()


if __name__ == "__main__":
    main()
