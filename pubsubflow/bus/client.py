"""One connection to NATS with synchronous ends.

nats-py connects, authenticates, speaks TLS, finds the other servers of a cluster and
reconnects. What it does per message (a regular expression, a queue, a task and a dataclass
each) is replaced here by a plain parser that calls a function, and by a plain list that
its flusher writes out. This is the only module that touches nats-py's inner names;
``tests/integration/bus`` holds it to them.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import ProtocolError

from pubsubflow.errors import BusUnavailable

log = structlog.get_logger(__name__)

Sink = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes subject, reply subject, payload and header block (empty if none) of one message."""

_M, _H, _P, _I, _PLUS, _MINUS = b"MHPI+-"


class Inflow:
    """Parse what the server sends and hand each message to its subscription's sink.

    It stands where nats-py has its own parser and keeps to that parser's two methods.

    Args:
        wire: The connection whose sinks are fed.
    """

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    def reset(self) -> None:
        """Forget half a message: a new connection starts."""
        self._chunks = []
        self._have = self._need = 0

    async def parse(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ProtocolError: The server said something unknown; nats-py then reconnects.
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
            raise ProtocolError from error
        self._chunks = [buffer[done:]] if done < len(buffer) else []
        self._have = len(buffer) - done
        for info in infos:
            await self._wire._process_info(json.loads(info))  # noqa: SLF001 - our own base class

    def _feed(self, buffer: bytes, infos: list[bytes]) -> tuple[int, int]:
        """Dispatch every whole message; return where the rest starts and how long it must get."""
        sinks = self._wire.sinks
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
            sink = sinks.get(words[2])
            if sink is not None:
                reply = words[3] if len(words) > fixed else b""
                try:
                    sink(words[1], reply, buffer[start:end], header)
                except Exception:
                    # One bad handler must not tear down everybody's connection.
                    subject = words[1].decode(errors="replace")
                    log.exception("bus.handler_failed", subject=subject)
        return at, 0

    def _control(self, kind: int, line: bytes, infos: list[bytes]) -> None:
        if kind == _P:
            self._wire.on_ping() if line[:4] == b"PING" else self._wire.on_pong()
        elif kind == _I:
            infos.append(line[5:])
        elif kind == _MINUS:
            self._wire.on_server_error(line[5:].strip(b"' ").decode())
        elif kind != _PLUS:
            raise ProtocolError


class Unencrypted(NatsError):  # noqa: N818 - what the server is
    """The server offers no TLS although we must have it."""


class Wire(Client):
    """A nats-py client that is written to and read from without awaiting.

    Args:
        buffer_bytes: How much may wait for the socket before :meth:`send` refuses.

    Attributes:
        must_encrypt: Say nothing, and above all not who we are, to a server without TLS.
    """

    def __init__(self, *, buffer_bytes: int) -> None:
        super().__init__()
        self._ps: Any = Inflow(self)
        self._buffer_bytes = buffer_bytes
        self._kick: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kick.set_result(None)
        self.sinks: dict[bytes, Sink] = {}
        self.must_encrypt = False

    def introduce(self, public_key: str) -> None:
        """Name the NKEY with which nonces are signed."""
        self._public_nkey = public_key

    def send(self, frame: bytes) -> None:
        """Queue one frame; all frames of this turn of the loop leave in one write.

        Frames leave in order. While disconnected they wait for the next connection.

        Raises:
            BusUnavailable: Too much is waiting already.
        """
        pending = self._pending
        if self._pending_data_size > self._buffer_bytes:
            raise BusUnavailable(
                f"{self._pending_data_size} bytes wait for NATS already: it is away or too slow"
            )
        # A list that holds something has kicked the flusher already, or waits for a connection.
        if not pending and self._status == Client.CONNECTED and self._flush_queue is not None:
            self._flush_queue.put_nowait(self._kick)
        pending.append(frame)
        self._pending_data_size += len(frame)

    def open_sink(self, subject: str, sink: Sink, *, queue: str = "") -> int:
        """Subscribe; nats-py subscribes again after each reconnect. Returns the handle."""
        self._sid += 1
        handle = self._sid
        # nats-py replays `_subs` on reconnect; never started, so it has no task of its own.
        self._subs[handle] = Subscription(self, handle, subject, queue=queue)
        self.sinks[b"%d" % handle] = sink
        if self._status == Client.CONNECTED:  # otherwise the replay subscribes it
            self.send(f"SUB {subject} {queue} {handle}\r\n".encode())
        return handle

    def close_sink(self, handle: int, *, keep_reading: bool = False) -> None:
        """Unsubscribe; with ``keep_reading`` the sink still gets what is on its way.

        Call again without it after a :meth:`flush`.
        """
        if self._subs.pop(handle, None) is not None and self._status == Client.CONNECTED:
            self.send(b"UNSUB %d\r\n" % handle)
        if not keep_reading:
            self.sinks.pop(b"%d" % handle, None)

    def write_out(self) -> None:
        """Give the transport all that waits, now."""
        if self._pending and self._transport is not None:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0

    @property
    def has_jetstream(self) -> bool:
        """Whether the server we are connected to keeps streams itself."""
        return bool(self._server_info.get("jetstream"))

    async def shut(self) -> None:
        """Close, whether or not a connection was ever made."""
        if self._flush_queue is None:
            return
        if self._pending and not self.is_connected:
            # nats-py would write it to the broken connection, raise, and stay half closed.
            log.warning("bus.unsent", bytes=self._pending_data_size)
            self._pending = []
            self._pending_data_size = 0
        if self._transport is not None and not self.is_connected:
            # nats-py would wait for ever for the end of one whose TLS handshake failed.
            self._transport.close()  # type: ignore[no-untyped-call]
            self._transport = None
        await self.close()
        self.sinks.clear()

    def on_ping(self) -> None:
        """Answer the server."""
        self.send(b"PONG\r\n")

    def on_pong(self) -> None:
        """Resolve the oldest flush; it may have been given up."""
        self._pings_outstanding = 0
        if self._pongs:
            waiting = self._pongs.pop(0)
            if not waiting.done():
                waiting.set_result(True)

    def on_server_error(self, text: str) -> None:
        """Report what the server complains about.

        If it is fatal the server closes the connection next, and we connect again:
        nats-py would stay closed for ever.
        """
        log.error("bus.server_error", error=text)

    def _connect_command(self) -> bytes:
        # nats-py speaks TLS when the server asks for it; somebody in between would not.
        if self.must_encrypt and not self._server_info.get("tls_required"):
            raise Unencrypted("nats: the server offers no TLS")
        return super()._connect_command()

    async def _send_ping(self, future: "asyncio.Future[Any] | None" = None) -> None:
        # nats-py's PING overtakes what is pending; written out first, flush() is a barrier.
        self.write_out()
        await super()._send_ping(future)
