"""Slow link: passes frames on between two interfaces, each after a delay, until its input ends.

Usage: slow_link.py INTERFACE NEW-INTERFACE MILLISECONDS
"""

import fcntl
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable

_TUNSETIFF = 0x400454CA
_TAP, _NO_PACKET_INFO, _OFFLOAD_HEADER = 0x0002, 0x1000, 0x4000
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_ALL_PROTOCOLS = 0x0003
_FRAME_BYTES = 70_000
"""Of the largest frame: several packets that the kernel has put together, with their header."""


class _Queue:
    def __init__(self, send: Callable[[bytes], object], seconds: float):
        self._send = send
        self._seconds = seconds
        self._frames: deque[tuple[float, bytes]] = deque()

    def put(self, frame: bytes):
        self._frames.append((time.monotonic() + self._seconds, frame))

    def send_due(self) -> float | None:
        """Send what is due; return in how many seconds the next one is."""
        while self._frames:
            left = self._frames[0][0] - time.monotonic()
            if left > 0:
                return left
            try:
                self._send(self._frames.popleft()[1])
            except OSError:
                continue  # the other side is not up: lost, as by a cable
        return None


def main(interface: str, new: str, milliseconds: str):
    """Pass frames on."""
    near = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    # With its header a frame may be one that the network card of a real machine would finish.
    near.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    near.bind((interface, _ALL_PROTOCOLS))
    far = os.open("/dev/net/tun", os.O_RDWR)
    flags = _TAP | _NO_PACKET_INFO | _OFFLOAD_HEADER
    fcntl.ioctl(far, _TUNSETIFF, struct.pack("16sH22x", new.encode(), flags))
    seconds = float(milliseconds) / 1000
    outward = _Queue(lambda frame: os.write(far, frame), seconds)
    inward = _Queue(near.send, seconds)
    print("begins", flush=True)
    while True:
        waits = [wait for wait in (outward.send_due(), inward.send_due()) if wait is not None]
        ready, _, _ = select.select([0, near, far], (), (), min(waits, default=None))
        if near in ready:
            frame, address = near.recvfrom(_FRAME_BYTES)
            if address[2] != socket.PACKET_OUTGOING:  # which we have sent ourselves
                outward.put(frame)
        if far in ready:
            inward.put(os.read(far, _FRAME_BYTES))
        if 0 in ready:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
