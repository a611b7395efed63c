"""Publishing that is over only when JetStream has the message.

nats-py's own ``publish_async`` never resolves when the connection breaks in between. Here
every message stays outstanding until its acknowledgement; what is unanswered for too long,
or across a reconnect, goes out again under the same ``Nats-Msg-Id``.
"""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from pubsubflow.bus.client import Wire
from pubsubflow.bus.protocol import check_subject, publication, publication_with_id, read_status
from pubsubflow.errors import BusUnavailable, MessageRefused

log = structlog.get_logger(__name__)

_STORE_FAILED = 10077
"""JSStreamStoreFailedF: also "maximum bytes exceeded" and the like; the text tells them apart."""
_OCCUPIED_TEXT = "maximum messages per subject exceeded"
_SERVER_SIDE = 500
"""Codes from here on are the server's own trouble: worth another try."""
_COMPLAIN_SECONDS = 10.0


class _Refusal(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Refusal | None = None


class Outgoing:
    """One message that JetStream has not acknowledged yet."""

    __slots__ = ("frame", "on_done", "on_occupied", "on_refused", "paused", "sent_at", "subject")

    def __init__(
        self,
        subject: str,
        frame: bytes,
        sent_at: float,
        on_done: Callable[[], None],
        on_occupied: Callable[[], None] | None,
        on_refused: Callable[[MessageRefused], None] | None,
    ) -> None:
        self.subject = subject
        self.frame = frame
        self.sent_at = sent_at
        self.on_done = on_done
        self.on_occupied = on_occupied or on_done
        self.on_refused = on_refused
        self.paused = False


class DurablePublisher:
    """Send messages, match their acknowledgements, send again what gets none.

    Args:
        wire: The connection.
        answer_seconds: After how long without an answer a message is sent again.
        pause_seconds: How long to wait when JetStream says that it cannot store now.
    """

    def __init__(
        self, wire: Wire, *, answer_seconds: float = 5.0, pause_seconds: float = 0.25
    ) -> None:
        self._wire = wire
        self._answer_seconds = answer_seconds
        self._pause_seconds = pause_seconds
        self._loop = asyncio.get_running_loop()
        self._inbox = wire.new_inbox() + "."
        self._cut = len(self._inbox)
        self._last = 0
        # In the order of sent_at: what is sent again moves to the end.
        self._outstanding: dict[bytes, Outgoing] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._complained_at = -_COMPLAIN_SECONDS

    @property
    def outstanding(self) -> int:
        """How many messages await their acknowledgement."""
        return len(self._outstanding)

    def open(self) -> None:
        """Subscribe the inbox that all acknowledgements come to."""
        self._wire.open_sink(self._inbox + "*", self._on_answer)

    def close(self) -> None:
        """Stop sending again."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str | None,
        on_done: Callable[[], None],
        on_occupied: Callable[[], None] | None = None,
        on_refused: Callable[[MessageRefused], None] | None = None,
    ) -> bytes:
        """Send one message and return its key for :meth:`forget`.

        Raises:
            MessageRefused: It can never be sent: too large, or a malformed subject or id.
            BusUnavailable: Too much waits for the socket already.
        """
        check_subject(subject)
        if len(payload) > self._wire.max_payload:
            raise MessageRefused(
                f"a message of {len(payload)} bytes to {subject} is larger than NATS takes "
                f"({self._wire.max_payload}): make it smaller or raise the server's max_payload"
            )
        self._last += 1
        reply = f"{self._inbox}{self._last}"
        if message_id is None:
            frame = publication(subject, reply, payload)
        else:
            frame = publication_with_id(subject, reply, payload, message_id)
        key = b"%d" % self._last
        if self._wire.is_connected:  # otherwise it goes out on reconnect
            self._wire.send(frame)
        now = self._loop.time()
        self._outstanding[key] = Outgoing(subject, frame, now, on_done, on_occupied, on_refused)
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(self._answer_seconds, self._on_timer)
        return key

    def forget(self, key: bytes) -> None:
        """Stop caring about a message; it may be stored or not."""
        self._outstanding.pop(key, None)

    def resend_all(self) -> None:
        """Send everything unanswered again, in order: the connection is new."""
        now = self._loop.time()
        for outgoing in self._outstanding.values():
            outgoing.sent_at = now
            self._transmit(outgoing)

    def _transmit(self, outgoing: Outgoing) -> None:
        if self._wire.is_connected:
            try:
                self._wire.send(outgoing.frame)
            except BusUnavailable as error:  # it stays outstanding: the timer tries again
                log.warning("bus.publish_postponed", subject=outgoing.subject, error=str(error))

    def _on_timer(self) -> None:
        self._timer = None
        due = self._loop.time() - self._answer_seconds
        late = []
        for key, outgoing in self._outstanding.items():
            if outgoing.sent_at > due:
                break
            late.append(key)
        if late and self._wire.is_connected:
            log.warning("bus.publish_unanswered", messages=len(late))
        for key in late:
            self._resend(key)
        if self._outstanding and not self._closed:
            oldest = next(iter(self._outstanding.values()))
            pause = max(oldest.sent_at - due, 0.001)
            self._timer = self._loop.call_later(pause, self._on_timer)

    def _resend(self, key: bytes) -> None:
        outgoing = self._outstanding.pop(key, None)
        if outgoing is None or self._closed:
            return
        outgoing.sent_at = self._loop.time()
        outgoing.paused = False
        self._outstanding[key] = outgoing
        self._transmit(outgoing)

    def _on_answer(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        del reply
        key = subject[self._cut :]
        if header or b'"error"' in data:
            self._on_complaint(key, data, header)
            return
        outgoing = self._outstanding.pop(key, None)
        if outgoing is not None:
            outgoing.on_done()

    def _on_complaint(self, key: bytes, data: bytes, header: bytes) -> None:
        if header:  # 503: no stream listens, or JetStream is still starting
            refusal = _Refusal(code=read_status(header), description="no stream takes this subject")
        else:
            refusal = msgspec.json.decode(data, type=_Answer).error or _Refusal()
        occupied = refusal.err_code == _STORE_FAILED and refusal.description == _OCCUPIED_TEXT
        if refusal.code >= _SERVER_SIDE and not occupied:
            self._postpone(key, refusal)
            return
        outgoing = self._outstanding.pop(key, None)
        if outgoing is None:
            return
        if occupied:
            outgoing.on_occupied()
            return
        error = MessageRefused(
            f"JetStream refuses {outgoing.subject}: {refusal.description} ({refusal.err_code})"
        )
        if outgoing.on_refused is None:
            log.error("bus.publish_refused", subject=outgoing.subject, error=str(error))
        else:
            outgoing.on_refused(error)

    def _postpone(self, key: bytes, refusal: _Refusal) -> None:
        outgoing = self._outstanding.get(key)
        if outgoing is None or outgoing.paused or self._closed:
            return
        outgoing.paused = True
        now = self._loop.time()
        if now - self._complained_at >= _COMPLAIN_SECONDS:
            self._complained_at = now
            log.warning(
                "bus.publish_postponed", subject=outgoing.subject, error=refusal.description
            )
        self._loop.call_later(self._pause_seconds, self._resend, key)
