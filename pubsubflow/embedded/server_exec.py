"""Turns a fresh process into a server that dies with the daemon.

Run as ``python -I -S become.py PARENT UID GID SIGNAL LIFE_FD COMMAND ...``: gives up root, ties its
life to the parent's, executes the command. It keeps the process id, and costs about 15 ms.

The order matters: Linux forgets the parent-death signal when a process changes its user, so that
signal is asked for last. It follows the *thread* that spawned, hence daemons spawn from the main
one. Where the kernel has no such signal, a watchdog process reads a pipe that only the daemon
holds open: end of file means that the daemon is gone.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MANY_DESCRIPTORS = 65_536  # the limit itself may be "unlimited"
_CANNOT_EXECUTE = 126  # what shells answer


def main(arguments: list[str]) -> None:
    """Become the command; returns only by raising.

    Args:
        arguments: Parent's process id; user and group id, -1 to keep; signal number to die by;
            descriptor of the life pipe, -1 for the kernel's parent-death signal; the command.

    Raises:
        OSError: The account cannot be taken, or the command cannot be executed.
    """
    parent, uid, gid, death_signal, life_fd = map(int, arguments[:5])
    command = arguments[5:]
    if uid >= 0:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if life_fd >= 0:
        _watch_pipe(life_fd, death_signal)
    else:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    if os.getppid() == parent:  # else it died before the tie held
        os.execv(command[0], command)  # noqa: S606 - no shell is the point


def _watch_pipe(life_fd: int, death_signal: int) -> None:
    server = os.getpid()
    if os.fork() > 0:
        os.close(life_fd)
        return
    os.setsid()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    os.dup2(life_fd, 0)
    os.closerange(1, _MANY_DESCRIPTORS)  # the locks and logs are the server's to hold
    os.read(0, 1)
    if os.getppid() == server:  # still our parent, so the id is not somebody else's by now
        os.kill(server, death_signal)
    os._exit(0)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"cannot become {sys.argv[6]}: {error}\n")
    sys.exit(_CANNOT_EXECUTE)
