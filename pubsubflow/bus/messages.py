"""Received messages: plain ones, and deliveries of a stream."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from pubsubflow.bus.protocol import decode_headers, encode_pub

Send = Callable[[bytes], None]

AGAIN_BLOCK = b"NATS/1.0\r\nPsf-Again: 1\r\n\r\n"
"""Headers of a message that was sent before, and may have been stored then."""
_AGAIN_MARK = b"\r\nPsf-Again:"
_V1_FIELDS, _DELIVERED = 9, 4
"""``$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>``; ADR-15's newer
form has domain and account before the stream."""


class _Received:
    """What plain messages and deliveries have in common."""

    __slots__ = ("_header", "_reply", "_send", "data", "subject")

    def __init__(
        self, send: Send, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        self._send = send
        self._reply = reply
        self._header = header
        self.data = data
        # NATS allows bytes that are not text, which are replaced.
        self.subject = subject.decode(errors="replace")

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers, decoded anew at each call, or None."""
        return decode_headers(self._header) if self._header else None


class Message(_Received):
    """A plain NATS message."""

    __slots__ = ()

    @property
    def wants_reply(self) -> bool:
        """Whether it is a request."""
        return bool(self._reply)

    def respond(self, payload: bytes) -> None:
        """Reply to a request; do nothing for a message that is not one."""
        if self._reply:
            self._send(encode_pub(self._reply.decode(), "", payload))


class Delivery(_Received):
    """One delivery of a stream's message, redelivered unless it is acknowledged in time.

    Acknowledgements are not fenced: one of an old delivery still removes the message.

    Attributes:
        again: Whether its sender has sent it before, and does not know whether it was stored.
        attempts: The number of deliveries, this one included; a new consumer starts at 1.
        stream_seq: The position in the stream.
    """

    __slots__ = ("_stored_at", "again", "attempts", "stream_seq")

    def __init__(
        self, send: Send, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        super().__init__(send, subject, reply, data, header)
        self.again = _AGAIN_MARK in header
        fields = reply.split(b".")
        delivered = _DELIVERED if len(fields) == _V1_FIELDS else _DELIVERED + 2
        self.attempts = int(fields[delivered])
        self.stream_seq = int(fields[delivered + 1])
        self._stored_at = fields[delivered + 3]

    def header(self, name: str) -> str | None:
        """Return a header, matched without case, or None; cheap for an absent one.

        Args:
            name: In lower case.
        """
        if name.encode() not in self._header.lower():
            return None
        headers = decode_headers(self._header).items()
        return next((value for known, value in headers if known.lower() == name), None)

    @property
    def timestamp(self) -> datetime:
        """When the stream stored the message, in UTC."""
        return datetime.fromtimestamp(int(self._stored_at) / 1_000_000_000, UTC)

    def ack(self) -> None:
        """Acknowledge the message; a work queue deletes it."""
        # An empty payload is an acknowledgement, and shorter than +ACK.
        self._send(b"PUB %b  0\r\n\r\n" % self._reply)

    def nak(self, delay_seconds: float | None = None) -> None:
        """Return the message for redelivery, at once or after a delay."""
        if delay_seconds is None:
            self._answer(b"-NAK")
        else:
            self._answer(b'-NAK {"delay": %d}' % int(delay_seconds * 1_000_000_000))

    def term(self) -> None:
        """Terminate the message: it is never delivered again."""
        self._answer(b"+TERM")

    def in_progress(self) -> None:
        """Restart the time limit of the acknowledgement."""
        self._answer(b"+WPI")

    def _answer(self, word: bytes) -> None:
        self._send(b"PUB %b  %d\r\n%b\r\n" % (self._reply, len(word), word))
