"""Clients with their requests, as the host hands them to the process of a file."""

import os
import socket
from contextlib import suppress
from typing import Any

from pubsubflow.airflow.protocol import ClientRequest, decode_request, encode
from pubsubflow.runner.frames import receive_frame, send_frame

_SECONDS = 10.0


class Handed:
    """A client that is connected.

    Args:
        sock: The stream to it.
        output: The file descriptor for output.
        request: Its request.
    """

    def __init__(self, sock: socket.socket, output: int, request: ClientRequest) -> None:
        self.sock = sock
        self.request = request
        self._output = output

    def take_output(self) -> int:
        """Return the file descriptor for output, which the caller owns from now on."""
        output, self._output = self._output, -1
        return output

    def drop_output(self) -> None:
        """Close the file descriptor for output, which another process has."""
        if self._output >= 0:
            os.close(self.take_output())

    def send(self, message: Any) -> None:
        """Send a message; nothing happens when the client is gone."""
        with suppress(OSError):
            send_frame(self.sock, encode(message))

    def close(self) -> None:
        """Close all that belongs to it in this process."""
        self.sock.close()
        self.drop_output()

    def pass_on(self, control: socket.socket) -> None:
        """Hand it to the process at the other end of a stream."""
        socket.send_fds(control, [b"c"], [self.sock.fileno(), self._output])
        send_frame(control, encode(self.request))


def receive_client(sock: socket.socket) -> Handed | None:
    """Return a client that has just connected; None if it sends no request."""
    sock.settimeout(_SECONDS)
    output = -1
    try:
        _, fds, _, _ = socket.recv_fds(sock, 1, 1)
        if fds:
            output = fds[0]
            found = Handed(sock, output, decode_request(receive_frame(sock)))
            sock.settimeout(None)
            return found
    except (OSError, EOFError, ValueError):
        pass
    if output >= 0:
        os.close(output)
    sock.close()
    return None


def receive_handed(control: socket.socket) -> Handed | None:
    """Return the next client that the host hands over; None when the host is gone."""
    try:
        data, fds, _, _ = socket.recv_fds(control, 1, 2)
        if not data:
            return None
        request = decode_request(receive_frame(control))
    except (OSError, EOFError):
        return None
    return Handed(socket.socket(fileno=fds[0]), fds[1], request)
