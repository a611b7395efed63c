"""Functions that forked children run in tests."""

import os
import signal
import socket
import subprocess
import sys
import time

from pubsubflow.runner.frames import receive_frame, send_frame


def echo(sock: socket.socket, argument: bytes) -> None:
    send_frame(sock, argument)
    while True:
        try:
            send_frame(sock, receive_frame(sock))
        except EOFError:
            return


def leave(sock: socket.socket, argument: bytes) -> None:
    raise SystemExit(int(argument))


def fail(sock: socket.socket, argument: bytes) -> None:
    raise ValueError(argument.decode())


def burn(sock: socket.socket, argument: bytes) -> None:
    """Send the pid, then stay in C code that keeps the GIL."""
    send_frame(sock, str(os.getpid()).encode())
    pow(3, 10**10)


def start_grandchild(sock: socket.socket, argument: bytes) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    send_frame(sock, str(child.pid).encode())
    child.wait()


def leave_daemon(sock: socket.socket, argument: bytes) -> None:
    """Send the pid of a process in a session of its own, whose parent has ended; then end."""
    program = "sleep 1000 >/dev/null 2>&1 </dev/null & echo $!"
    started = subprocess.run(
        ["setsid", "sh", "-c", program], stdout=subprocess.PIPE, check=True, text=True
    )
    send_frame(sock, started.stdout.strip().encode())
    if argument:
        receive_frame(sock)


def show(sock: socket.socket, argument: bytes) -> None:
    """Send open descriptors, session, signal handlers and stdin."""
    folder = "/proc/self/fd" if os.path.exists("/proc/self/fd") else "/dev/fd"  # noqa: PTH110
    handlers = [signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGCHLD)]
    facts = {
        "fds": sorted(fd for fd in map(int, os.listdir(folder)) if _is_open(fd)),  # noqa: PTH208
        "session": os.getsid(0) == os.getpid(),
        "default_handlers": all(handlers),
        "stdin": os.read(0, 10).decode(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }
    send_frame(sock, repr(facts).encode())


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def nap(sock: socket.socket, argument: bytes) -> None:
    send_frame(sock, b"up")
    time.sleep(1000)


def list_modules(sock: socket.socket, names: bytes) -> None:
    """Say which of some modules are imported at the start."""
    send_frame(sock, b" ".join(name for name in names.split() if name.decode() in sys.modules))
