"""Children of a file's process: given an attempt, sent away, stopped. They import no Airflow."""

import os
import select
import signal
import socket

from pubsubflow.airflow.inside.passing import Handed, receive_handed
from pubsubflow.airflow.inside.processes.children import ENDED, IDLE, AttemptChildren
from pubsubflow.airflow.protocol import ClientRequest, decode_from_inside
from pubsubflow.runner.frames import receive_frame

REQUEST = ClientRequest("attempt", "/", "/", "one.py")


def kept(control, *, ahead):
    """Take attempts until the stream ends, as a process that is reused."""
    while (handed := receive_handed(control)) is not None:
        handed.close()
        control.sendall(ENDED)
        control.sendall(IDLE)


def waits(control, *, ahead):
    """Begin an attempt that never ends."""
    receive_handed(control).sock.sendall(b"begun")
    signal.pause()


def client():
    """Return a client's end of the stream, and what the parent has of it."""
    ours, theirs = socket.socketpair()
    return ours, Handed(theirs, os.open(os.devnull, os.O_WRONLY), REQUEST)


def gone(children, child):
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert children.reap() == [child]
    assert not len(children)


def test_a_child_that_is_sent_away_ends():
    children = AttemptChildren(kept, lambda: None)
    children.fork(ahead=True)
    (child,) = children.idle
    children.dismiss(child)
    gone(children, child)


def test_a_child_comes_back_and_is_used_first():
    ours, handed = client()
    children = AttemptChildren(kept, handed.close)  # what a child inherits
    child = children.hand_out(handed)
    said = b""
    while IDLE not in said:
        select.select([child.control], [], [])
        said = child.read()
    with ours:
        assert ours.recv(1) == b""  # both have closed it
    children.fork(ahead=True)
    children.came_back(child)
    ours, handed = client()
    with ours:
        again = children.hand_out(handed)
        assert (again, again.used) == (child, 2)
        for each in children:
            each.kill()
            os.waitid(os.P_PID, each.pid, os.WEXITED | os.WNOWAIT)
        children.reap()


def test_a_child_that_is_stopped_says_how_it_ended():
    children = AttemptChildren(waits, lambda: None)
    ours, handed = client()
    child = children.hand_out(handed)
    with ours:
        assert ours.recv(5) == b"begun"
        child.interrupt()
        gone(children, child)
        assert decode_from_inside(receive_frame(ours)).error_message.endswith("signal 15")
