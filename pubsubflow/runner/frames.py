"""Frames over a stream: four bytes of length, big endian, then the data."""

import socket
import struct

HEADER_BYTES = 4
MAX_FRAME_BYTES = 1 << 30
LENGTH = struct.Struct(">I")


class FrameTooLarge(ValueError):  # noqa: N818 - says what the frame is
    """A frame is longer than 1 GiB, or the stream holds something else than frames."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a frame of {size} bytes is longer than {MAX_FRAME_BYTES} bytes")
        self.size = size


def pack(data: bytes) -> bytes:
    """Return `data` as a frame."""
    if len(data) > MAX_FRAME_BYTES:
        raise FrameTooLarge(len(data))
    return LENGTH.pack(len(data)) + data


def send_frame(sock: socket.socket, data: bytes) -> None:
    """Send one frame over a blocking socket."""
    sock.sendall(pack(data))


def receive_frame(sock: socket.socket) -> bytes:
    """Receive exactly one frame from a blocking socket.

    Raises:
        EOFError: The other side closed the stream.
    """
    (size,) = LENGTH.unpack(_receive_exactly(sock, HEADER_BYTES))
    if size > MAX_FRAME_BYTES:
        raise FrameTooLarge(size)
    return _receive_exactly(sock, size)


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


class FrameDecoder:
    """Splits a stream into frames, in whatever chunks it arrives."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = HEADER_BYTES

    def feed(self, data: bytes) -> list[bytes]:
        """Add what arrived and return the frames that are complete now."""
        if self._rest:
            self._rest += data
            # A large frame arrives in many chunks: without this each of them would copy all before.
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames = []
        position, size = 0, len(data)
        while size - position >= HEADER_BYTES:
            (length,) = LENGTH.unpack_from(data, position)
            if length > MAX_FRAME_BYTES:
                raise FrameTooLarge(length)
            end = position + HEADER_BYTES + length
            if end > size:
                self._needed = end - position
                break
            frames.append(data[position + HEADER_BYTES : end])
            position = end
        else:
            self._needed = HEADER_BYTES
        if position < size:
            self._rest += data[position:]
        return frames
