"""The durable publisher: every message is resent until JetStream has acknowledged it.

nats-py's own ``publish_async`` never resolves when the connection breaks in between. Here
every message stays outstanding until its acknowledgement; after a time limit, or a reconnect,
it is resent with the same ``Nats-Msg-Id``.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import structlog

from pubsubflow.bus.client import NatsClient
from pubsubflow.bus.messages import AGAIN_BLOCK
from pubsubflow.bus.protocol import (
    check_subject,
    decode_status,
    encode_headers,
    encode_pub,
    encode_pub_with_id,
)
from pubsubflow.bus.streams import stream_configs
from pubsubflow.errors import BusUnavailable, MessageRefused

log = structlog.get_logger(__name__)

_STORE_FAILED = 10077
"""JSStreamStoreFailedF: also "maximum bytes exceeded" and the like; only the text differs."""
_OCCUPIED_TEXT = "maximum messages per subject exceeded"
_IN_PROCESS = 10158
"""JSStreamDuplicateMessageConflict: the first one is not stored, and perhaps never will be."""
_SERVER_SIDE = 500
"""Codes from here on are errors of the server, which a retry may overcome."""
_WARN_SECONDS = 10.0
_KEPT_BYTES = 32 * 1024 * 1024
_ONCE_MORE_SECONDS = 0.5
"""After which what a new leader has not answered is sent again: it may not have listened yet."""
_SUBJECTS = {each["name"]: each["subjects"][0].removesuffix(">") for each in stream_configs(1)}
"""Streams by name, and what the subjects of their messages begin with."""


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    error: _Error | None = None


class PendingMessage:
    """A message that JetStream has not acknowledged yet."""

    __slots__ = (
        "first_sent_at",
        "frame",
        "on_done",
        "on_occupied",
        "on_refused",
        "paused",
        "sent_at",
        "subject",
    )

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
        self.first_sent_at = self.sent_at = sent_at
        self.on_done = on_done
        self.on_occupied = on_occupied or on_done
        self.on_refused = on_refused
        self.paused = False


class DurablePublisher:
    """Sends messages, matches their acknowledgements, and resends those without one.

    Args:
        client: The connection.
        answer_seconds: Time without an answer until a message is resent.
        pause_seconds: Pause after JetStream has answered that it cannot store now.
    """

    def __init__(
        self, client: NatsClient, *, answer_seconds: float = 5.0, pause_seconds: float = 0.25
    ) -> None:
        self._client = client
        self._answer_seconds = answer_seconds
        self._pause_seconds = pause_seconds
        self._loop = asyncio.get_running_loop()
        self._inbox = client.new_inbox() + "."
        self._cut = len(self._inbox)
        self._last = 0
        # In the order of sent_at: what is sent again moves to the end.
        self._outstanding: dict[bytes, PendingMessage] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._warned_at = -_WARN_SECONDS
        self._connected_at = self._loop.time()
        self._kept_bytes = 0

    @property
    def outstanding(self) -> int:
        """The number of messages that are not acknowledged."""
        return len(self._outstanding)

    @property
    def stalled_seconds(self) -> float:
        """How long the oldest of them has waited on this connection; 0 if there is none."""
        # Not the first one: what is sent again moves to the end.
        first = min((each.first_sent_at for each in self._outstanding.values()), default=None)
        if first is None:
            return 0.0
        return self._loop.time() - max(first, self._connected_at)

    def open(self) -> None:
        """Subscribe to the inbox of the acknowledgements."""
        self._client.open_subscription(self._inbox + "*", self._on_reply)

    def close(self) -> None:
        """Stop resending."""
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
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send one message and return its key for :meth:`forget`.

        Raises:
            MessageRefused: It is too large, or its subject or id is malformed.
            BusUnavailable: Too much data waits for the socket already.
        """
        check_subject(subject)
        if len(payload) > self._client.max_payload:
            raise MessageRefused(
                f"a message of {len(payload)} bytes to {subject} is larger than the limit "
                f"of NATS ({self._client.max_payload}): make it smaller or raise max_payload"
            )
        self._last += 1
        reply = f"{self._inbox}{self._last}"
        if message_id is None:
            frame = encode_pub(subject, reply, payload)
        elif headers:
            block = encode_headers({"Nats-Msg-Id": message_id, **headers})
            frame = encode_pub(subject, reply, payload, block)
        else:
            frame = encode_pub_with_id(subject, reply, payload, message_id)
        key = b"%d" % self._last
        if self._client.is_connected:  # otherwise it goes out on reconnect
            self._client.send(frame)
        now = self._loop.time()
        self._outstanding[key] = PendingMessage(
            subject, frame, now, on_done, on_occupied, on_refused
        )
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(self._answer_seconds, self._on_timer)
        return key

    def keep(self, subject: str, payload: bytes) -> None:
        """Send a message without an id, and keep it until it is stored.

        What is sent again says so (`Delivery.again`): its receiver makes sure that the first was
        not stored after all, and done since. It is sent once, as by `Bus.publish`, while too much
        is kept already.

        Raises:
            MessageRefused: It is too large, or its subject is malformed.
            BusUnavailable: Too much data waits for the socket already.
        """
        size = len(payload)
        if self._kept_bytes + size > _KEPT_BYTES:
            self._client.send(encode_pub(subject, "", payload))
            return
        done = partial(self._release, size)
        key = self.send(
            subject, payload, message_id=None, on_done=done, on_refused=partial(self._drop, size)
        )
        self._kept_bytes += size
        reply = f"{self._inbox}{self._last}"
        # The first sending is as any other: only what comes again costs its receiver a request.
        self._outstanding[key].frame = encode_pub(subject, reply, payload, AGAIN_BLOCK)

    def _release(self, size: int) -> None:
        self._kept_bytes -= size

    def _drop(self, size: int, error: MessageRefused) -> None:
        self._kept_bytes -= size
        log.error("bus.publish_refused", error=str(error))

    def resend_stream(self, stream: str) -> None:
        """Resend what a stream has not acknowledged, now that it has a new leader."""
        # Peers of a leader that is gone have routed to it what was sent: that is lost for certain,
        # but what a new one has stored without our hearing of it is refused by id or by subject.
        beginning = _SUBJECTS.get(stream)
        if beginning is not None and not self._closed:
            self._resend_below(beginning)
            self._loop.call_later(_ONCE_MORE_SECONDS, self._resend_below, beginning)

    def _resend_below(self, beginning: str) -> None:
        late = self._loop.time() - _ONCE_MORE_SECONDS / 2
        keys = [
            key
            for key, message in self._outstanding.items()
            if message.sent_at < late and message.subject.startswith(beginning)
        ]
        for key in keys:
            self._resend(key)

    def forget(self, key: bytes) -> None:
        """Stop waiting for an acknowledgement; the message may be stored or not."""
        self._outstanding.pop(key, None)

    def resend_all(self) -> None:
        """Resend all outstanding messages, in order, over a new connection."""
        now = self._connected_at = self._loop.time()
        for message in self._outstanding.values():
            message.sent_at = now
            self._transmit(message)

    def _transmit(self, message: PendingMessage) -> None:
        if self._client.is_connected:
            try:
                self._client.send(message.frame)
            except BusUnavailable as error:  # it stays outstanding: the timer tries again
                log.warning("bus.publish_postponed", subject=message.subject, error=str(error))

    def _on_timer(self) -> None:
        self._timer = None
        due = self._loop.time() - self._answer_seconds
        late = []
        for key, message in self._outstanding.items():
            if message.sent_at > due:
                break
            late.append(key)
        if late and self._client.is_connected:
            log.warning("bus.publish_timed_out", messages=len(late))
        for key in late:
            self._resend(key)
        if self._outstanding and not self._closed:
            oldest = next(iter(self._outstanding.values()))
            pause = max(oldest.sent_at - due, 0.001)
            self._timer = self._loop.call_later(pause, self._on_timer)

    def _resend(self, key: bytes) -> None:
        message = self._outstanding.pop(key, None)
        if message is None or self._closed:
            return
        message.sent_at = self._loop.time()
        message.paused = False
        # At the end again, as the order is that of sent_at.
        self._outstanding[key] = message
        self._transmit(message)

    def _on_reply(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        del reply
        key = subject[self._cut :]
        # A substring test in place of decoding: nearly all replies are plain acknowledgements.
        if header or b'"error"' in data:
            self._on_error(key, data, header)
            return
        message = self._outstanding.pop(key, None)
        if message is not None:
            message.on_done()

    def _on_error(self, key: bytes, data: bytes, header: bytes) -> None:
        if header:  # 503: no stream listens, or JetStream is still starting
            failure = _Error(code=decode_status(header), description="no stream takes this subject")
        else:
            failure = msgspec.json.decode(data, type=_PubAck).error or _Error()
        occupied = failure.err_code == _STORE_FAILED and failure.description == _OCCUPIED_TEXT
        if (failure.code >= _SERVER_SIDE and not occupied) or failure.err_code == _IN_PROCESS:
            self._postpone(key, failure)
            return
        message = self._outstanding.pop(key, None)
        if message is None:
            return
        if occupied:
            message.on_occupied()
            return
        error = MessageRefused(
            f"JetStream refuses {message.subject}: {failure.description} ({failure.err_code})"
        )
        if message.on_refused is None:
            log.error("bus.publish_refused", subject=message.subject, error=str(error))
        else:
            message.on_refused(error)

    def _postpone(self, key: bytes, failure: _Error) -> None:
        message = self._outstanding.get(key)
        if message is None or message.paused or self._closed:
            return
        message.paused = True
        now = self._loop.time()
        if now - self._warned_at >= _WARN_SECONDS:
            self._warned_at = now
            log.warning("bus.publish_postponed", subject=message.subject, error=failure.description)
        self._loop.call_later(self._pause_seconds, self._resend, key)
