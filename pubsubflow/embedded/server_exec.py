"""Server processes that die with the daemon: drops privileges, then executes the server.

Run as ``python -I -S server_exec.py PARENT UID GID SIGNAL PARENT_FD COMMAND ...``: drops root,
arranges to be killed when the parent dies, executes the command. It keeps the process id, and costs
about 13 ms: a first start waits for four of them.

Linux resets the parent-death signal when a process changes its user, so the signal is requested
after that. It follows the *thread* that spawned the process, hence daemons spawn from the main
thread. Where the kernel has no such signal, a watchdog process reads a pipe that only the daemon
holds open: end of file means that the daemon has died.
"""

import _signal as signal  # type: ignore[import-not-found] # the other's enums take 6 ms
import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MANY_DESCRIPTORS = 65_536  # the limit itself may be "unlimited"
_CANNOT_EXECUTE = 126  # what shells answer


def main(arguments: list[str]) -> None:
    """Execute the command in this process; return only if the parent has died.

    Args:
        arguments: The parent's process id; user and group id, -1 to keep them; the signal to die
            by; the descriptor of the parent's pipe, -1 for the kernel's parent-death signal; the
            command.

    Raises:
        OSError: The account cannot be used, or the command cannot be executed.
    """
    parent, uid, gid, death_signal, parent_fd = map(int, arguments[:5])
    command = arguments[5:]
    if uid >= 0:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if parent_fd >= 0:
        _watch_pipe(parent_fd, death_signal)
    else:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    # A parent that died before the signal was requested will never send it.
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606 - no shell is the point


def _watch_pipe(parent_fd: int, death_signal: int) -> None:
    server = os.getpid()
    if os.fork() > 0:
        os.close(parent_fd)
        return
    os.setsid()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    os.dup2(parent_fd, 0)
    # The watchdog must not keep the server's locks and logs open after it has exited.
    os.closerange(1, _MANY_DESCRIPTORS)
    os.read(0, 1)
    # Still the parent, so the process id has not been reused.
    if os.getppid() == server:
        os.kill(server, death_signal)
    os._exit(0)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"cannot execute {sys.argv[6]}: {error}\n")
    sys.exit(_CANNOT_EXECUTE)
