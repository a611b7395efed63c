"""What comes in: plain messages and deliveries of a stream."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from pubsubflow.bus.protocol import publication, read_headers

Send = Callable[[bytes], None]

_V1_FIELDS = 9
"""``$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>``; ADR-15's newer
form has domain and account before the stream."""


class Message:
    """A plain NATS message."""

    __slots__ = ("_header", "_reply", "_send", "_subject", "data")

    def __init__(
        self, send: Send, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        self._send = send
        self._subject = subject
        self._reply = reply
        self._header = header
        self.data = data

    @property
    def subject(self) -> str:
        """Where it was published to; NATS lets bytes pass that are no text."""
        return self._subject.decode(errors="replace")

    @property
    def wants_answer(self) -> bool:
        """Whether somebody waits for :meth:`respond`."""
        return bool(self._reply)

    @property
    def headers(self) -> Mapping[str, str] | None:
        """Its headers, read anew at each call, or None."""
        return read_headers(self._header) if self._header else None

    def respond(self, payload: bytes) -> None:
        """Answer who asked; nothing happens if nobody did."""
        if self._reply:
            self._send(publication(self._reply.decode(), "", payload))


class Delivery:
    """One delivery of a stream's message; it comes again unless it is acknowledged in time.

    Acknowledgements are not fenced: one of an old delivery still removes the message.
    """

    __slots__ = ("_header", "_reply", "_send", "_subject", "data")

    def __init__(
        self, send: Send, subject: bytes, reply: bytes, data: bytes, header: bytes
    ) -> None:
        self._send = send
        self._subject = subject
        self._reply = reply
        self._header = header
        self.data = data

    @property
    def subject(self) -> str:
        """Where it was published to; NATS lets bytes pass that are no text."""
        return self._subject.decode(errors="replace")

    @property
    def headers(self) -> Mapping[str, str] | None:
        """Its headers, read anew at each call, or None."""
        return read_headers(self._header) if self._header else None

    def header(self, name: str) -> str | None:
        """Return a header whatever its name's case, or None; cheap for one that is not there.

        Args:
            name: In lower case.
        """
        if name.encode() not in self._header.lower():
            return None
        headers = read_headers(self._header).items()
        return next((value for known, value in headers if known.lower() == name), None)

    @property
    def attempts(self) -> int:
        """How often it has been delivered, this time included; a new consumer starts at 1."""
        return self._number(4)

    @property
    def stream_seq(self) -> int:
        """Its place in the stream."""
        return self._number(5)

    @property
    def timestamp(self) -> datetime:
        """When the stream stored it, in UTC."""
        return datetime.fromtimestamp(self._number(7) / 1_000_000_000, UTC)

    def ack(self) -> None:
        """Say that it is done: a work queue forgets it."""
        self._send(b"PUB %b  0\r\n\r\n" % self._reply)

    def nak(self, delay_seconds: float | None = None) -> None:
        """Give it back: at once, or after a delay."""
        if delay_seconds is None:
            self._answer(b"-NAK")
        else:
            self._answer(b'-NAK {"delay": %d}' % int(delay_seconds * 1_000_000_000))

    def term(self) -> None:
        """Say that it must never be delivered again."""
        self._answer(b"+TERM")

    def in_progress(self) -> None:
        """Start its acknowledgement time anew."""
        self._answer(b"+WPI")

    def _answer(self, word: bytes) -> None:
        self._send(b"PUB %b  %d\r\n%b\r\n" % (self._reply, len(word), word))

    def _number(self, place: int) -> int:
        fields = self._reply.split(b".")
        return int(fields[place if len(fields) == _V1_FIELDS else place + 2])
