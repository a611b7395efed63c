"""The NATS client: nats-py's connection, with synchronous sending and receiving.

nats-py connects, authenticates, speaks TLS, finds the other servers of a cluster and
reconnects. Its work per message (a regular expression, a queue, a task and a dataclass
each) is replaced here by a plain parser that calls a function, and by a plain list that
its flusher writes out. This is the only module that uses nats-py's private names;
``tests/integration/bus`` checks them.
"""

import asyncio
import importlib
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from pubsubflow.errors import BusUnavailable
from pubsubflow.model.lazy_import import deferred, hidden

# Each process that a worker starts elsewhere waits for these imports: websockets alone need the
# first, and streams are read and made without the second.
with hidden("aiohttp"), deferred("nats.js"):
    import nats.errors
    from nats.aio import transport
    from nats.aio.client import Client
    from nats.aio.subscription import Subscription

NatsError = nats.errors.Error
NatsFlushTimeout = nats.errors.FlushTimeoutError
log = structlog.get_logger(__name__)

MessageHandler = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply subject, payload and header block (empty if none) of a message."""

_M, _H, _P, _I, _PLUS, _MINUS = b"MHPI+-"


class FrameParser:
    """Parser of the server's frames, which calls the handler of each message's subscription.

    It replaces nats-py's own parser and has the same two methods.

    Args:
        client: The client whose handlers are called.
    """

    def __init__(self, client: "NatsClient") -> None:
        self._client = client
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    def reset(self) -> None:
        """Discard a partial message: a new connection starts."""
        self._chunks = []
        self._have = self._need = 0

    async def parse(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises:
            ProtocolError: The server sent something unknown; nats-py then reconnects.
        """
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return
        buffer = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        infos: list[bytes] = []
        try:
            done, self._need = self._feed(buffer, infos)
        except (ValueError, IndexError) as error:
            raise nats.errors.ProtocolError from error
        self._chunks = [buffer[done:]] if done < len(buffer) else []
        self._have = len(buffer) - done
        for info in infos:
            await self._client._process_info(json.loads(info))  # noqa: SLF001 - our own base class

    def _feed(self, buffer: bytes, infos: list[bytes]) -> tuple[int, int]:
        """Handle every complete frame; return where the rest starts, and how long it must be."""
        handlers = self._client.handlers
        size = len(buffer)
        at = 0
        while at < size:
            line_end = buffer.find(b"\r\n", at)
            if line_end < 0:
                break
            kind = buffer[at]
            if kind not in (_M, _H):
                self._control(kind, buffer[at:line_end], infos)
                at = line_end + 2
                continue
            words = buffer[at:line_end].split()
            start = line_end + 2
            end = start + int(words[-1])
            if end + 2 > size:
                return at, end + 2 - at
            header = b""
            fixed = 4
            if kind == _H:
                fixed = 5
                body = start + int(words[-2])
                header = buffer[start:body]
                start = body
            at = end + 2
            handler = handlers.get(words[2])
            if handler is not None:
                reply = words[3] if len(words) > fixed else b""
                try:
                    handler(words[1], reply, buffer[start:end], header)
                except Exception:
                    # A failing handler must not tear down the connection that all services share.
                    subject = words[1].decode(errors="replace")
                    log.exception("bus.handler_failed", subject=subject)
        return at, 0

    def _control(self, kind: int, line: bytes, infos: list[bytes]) -> None:
        if kind == _P:
            self._client.on_ping() if line[:4] == b"PING" else self._client.on_pong()
        elif kind == _I:
            infos.append(line[5:])
        elif kind == _MINUS:
            self._client.on_server_error(line[5:].strip(b"' ").decode())
        elif kind != _PLUS:
            raise nats.errors.ProtocolError


def allow_websockets() -> None:
    """Enable connections to servers by websockets, which take long to import."""
    vars(transport)["aiohttp"] = importlib.import_module("aiohttp")


class ServerWithoutTls(NatsError):  # noqa: N818 - a property of the server
    """The server offers no TLS although the settings require it."""


class NatsClient(Client):
    """A nats-py client that sends and receives without awaiting.

    Args:
        buffer_bytes: Limit of unsent data, above which :meth:`send` refuses.

    Attributes:
        handlers: Subscription id → handler.
        requires_tls: Send nothing, above all no credentials, to a server without TLS.
        answered_at: When the server has last answered a request or a PING, in the loop's time.
    """

    def __init__(self, *, buffer_bytes: int) -> None:
        super().__init__()
        self._ps: Any = FrameParser(self)
        self._buffer_bytes = buffer_bytes
        self._kick: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kick.set_result(None)
        self.handlers: dict[bytes, MessageHandler] = {}
        self.requires_tls = False
        self.answered_at = 0.0

    def set_nkey(self, public_key: str) -> None:
        """Set the public key of the NKEY that signs nonces."""
        self._public_nkey = public_key

    def send(self, frame: bytes) -> None:
        """Queue a frame; all frames of one turn of the event loop are written at once, in order.

        While disconnected they wait for the next connection.

        Raises:
            BusUnavailable: Too much data is waiting already.
        """
        pending = self._pending
        if self._pending_data_size > self._buffer_bytes:
            raise BusUnavailable(
                f"{self._pending_data_size} bytes wait for NATS already: it is down or too slow"
            )
        # A list that holds something has kicked the flusher already, or waits for a connection.
        if not pending and self._status == Client.CONNECTED and self._flush_queue is not None:
            self._flush_queue.put_nowait(self._kick)
        pending.append(frame)
        self._pending_data_size += len(frame)

    def open_subscription(self, subject: str, handler: MessageHandler, *, queue: str = "") -> int:
        """Subscribe and return the subscription's id; nats-py resubscribes after a reconnect."""
        self._sid += 1
        handle = self._sid
        # nats-py replays `_subs` on reconnect; never started, so it has no task of its own.
        self._subs[handle] = Subscription(self, handle, subject, queue=queue)
        self.handlers[b"%d" % handle] = handler
        if self._status == Client.CONNECTED:  # otherwise the replay subscribes it
            self.send(f"SUB {subject} {queue} {handle}\r\n".encode())
        return handle

    def close_subscription(self, handle: int, *, late: MessageHandler | None = None) -> None:
        """Unsubscribe; messages on their way are dropped, or go to ``late``.

        Call it again without ``late`` after a :meth:`flush`, or a while.
        """
        if self._subs.pop(handle, None) is not None and self._status == Client.CONNECTED:
            self.send(b"UNSUB %d\r\n" % handle)
        if late is None:
            self.handlers.pop(b"%d" % handle, None)
        else:
            self.handlers[b"%d" % handle] = late

    def write_pending(self) -> None:
        """Write all pending frames to the transport."""
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0

    def write_early(self) -> None:
        """Write pending frames before the flusher's turn, if there is a connection."""
        if self._status == Client.CONNECTED:
            # A transport that has just closed refuses: they are left to the next connection.
            with suppress(OSError, RuntimeError):
                self.write_pending()

    @property
    def has_jetstream(self) -> bool:
        """Whether the connected server has JetStream."""
        return bool(self._server_info.get("jetstream"))

    @property
    def is_clustered(self) -> bool:
        """Whether the connected server is one of a cluster."""
        return bool(self._server_info.get("cluster"))

    @property
    def other_servers(self) -> list[str]:
        """The URLs of the servers that are not connected to, of those that are known."""
        return [each.uri.geturl() for each in self._server_pool if each is not self._current_server]

    async def move_to(self, url: str) -> None:
        """Connect to another server; to any if that one has gone meanwhile."""
        self._server_pool.sort(key=lambda each: each.uri.geturl() != url)
        await self.force_reconnect()

    async def disconnect(self) -> None:
        """Close the connection, if there ever was one."""
        if self._flush_queue is None:
            return
        transport = self._transport
        if self._pending and not self.is_connected:
            # nats-py would write it to the broken connection, raise, and stay half closed.
            log.warning("bus.frames_dropped", bytes=self._pending_data_size)
            self._pending = []
            self._pending_data_size = 0
        if self._transport is not None and not self.is_connected:
            # nats-py would wait for ever for the end of one whose TLS handshake failed.
            self._transport.close()  # type: ignore[no-untyped-call]
            self._transport = None
        await self.close()
        self.handlers.clear()
        # The stream below TLS closes when that has said good-bye, which nobody waits for.
        below = getattr(transport, "_bare_io_writer", None)
        if below is not None:
            below.close()

    def on_ping(self) -> None:
        """Reply to the server's PING."""
        self.send(b"PONG\r\n")

    def on_pong(self) -> None:
        """Resolve the oldest flush, which may have been cancelled."""
        self.note_answer()
        if self._pongs:
            waiting = self._pongs.pop(0)
            if not waiting.done():
                waiting.set_result(True)

    def note_answer(self) -> None:
        """Note that the server has answered what was sent."""
        self._pings_outstanding = 0
        self.answered_at = asyncio.get_running_loop().time()

    def on_server_error(self, text: str) -> None:
        """Log an error of the server.

        If it is fatal, the server closes the connection next, and it is opened again: nats-py
        would stay closed.
        """
        log.error("bus.server_error", error=text)

    def _connect_command(self) -> bytes:
        # nats-py uses TLS when the server offers it; an attacker in between would not offer it.
        if self.requires_tls and not self._server_info.get("tls_required"):
            raise ServerWithoutTls("nats: the server offers no TLS")
        return super()._connect_command()

    async def _send_ping(self, future: "asyncio.Future[Any] | None" = None) -> None:
        if future is None:  # nats-py's own, at intervals: an answer since the last one says as much
            silent_seconds = asyncio.get_running_loop().time() - self.answered_at
            if silent_seconds < self.options["ping_interval"]:
                self._pings_outstanding = 0
                return
        # nats-py's PING overtakes what is pending; written out first, flush() is a barrier.
        self.write_pending()
        await super()._send_ping(future)
