"""IMAP session: the part of IMAP4rev1 (RFC 3501) and IDLE (RFC 2177) that finds new mail."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import count

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from msgspec import Struct

from pubsubflow.errors import TriggerError

ERRORS = (OSError, anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError)
_RESPONSE_SECONDS = 60.0
_CLOSE_SECONDS = 2.0
_LONGEST_LINE = 1 << 20
_LONGEST_LITERAL = 1 << 24
_LITERAL = re.compile(rb"\{(\d+)\}$")
_EXISTS = re.compile(rb"\* \d+ (EXISTS|RECENT)", re.IGNORECASE)
_UID = re.compile(rb"\bUID (\d+)", re.IGNORECASE)
_STORED = re.compile(rb'INTERNALDATE "([^"]+)"', re.IGNORECASE)
_PLAIN = re.compile(rb"[\x20-\x7e]*")


class FetchedMessage(Struct, frozen=True):
    """The fetched part of one message.

    Attributes:
        uid: Its number in the folder.
        stored: When it arrived in the folder, with a zone.
        content: The parts of its content that were requested.
    """

    uid: int
    stored: datetime
    content: bytes


class Refused(Exception):  # noqa: N818 - the server's word for it is NO
    """The server answered NO or BAD."""


class Imap:
    """A session with one folder open for reading.

    Args:
        stream: The connection, before the server's greeting.

    Attributes:
        validity: The folder's UIDVALIDITY.
        following: The lowest UID that the next message can have.
        idles: Whether the server offers IDLE.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._incoming = BufferedByteReceiveStream(stream)
        self._tags = count(1)
        self._changed = False
        self.validity = 0
        self.following = 1
        self.idles = False

    async def open(self, user: str, password: str, folder: str) -> None:
        """Log in and open a folder.

        Raises:
            Refused: The server does not accept one of them.
        """
        with anyio.fail_after(_RESPONSE_SECONDS):
            greeting = await self._response()
        if not greeting[0].upper().startswith(b"* PREAUTH"):
            await self._command(b"LOGIN", user.encode(), password.encode())
        offered = b" ".join(parts[0] for parts in await self._command(b"CAPABILITY"))
        self.idles = b"IDLE" in offered.upper().split()
        response = b" ".join(parts[0] for parts in await self._command(b"EXAMINE", folder.encode()))
        self.validity = _integer(rb"UIDVALIDITY (\d+)", response, 0)
        self.following = _integer(rb"UIDNEXT (\d+)", response, 1)

    async def since(self, moment: datetime) -> list[int]:
        """Return the UIDs of messages that arrived on a day or later, in any zone."""
        day = f"{moment.day}-{_MONTHS[moment.month - 1]}-{moment.year}"
        found: list[int] = []
        for parts in await self._command(f"UID SEARCH SINCE {day}".encode()):
            if parts[0].upper().startswith(b"* SEARCH"):
                found.extend(int(uid) for uid in parts[0].split()[2:])
        return sorted(found)

    async def fetch(self, uids: str, what: str) -> list[FetchedMessage]:
        """Return a part of messages' content, by UID.

        Args:
            uids: One, several with commas, or a range such as `7:*`.
            what: Such as `BODY.PEEK[HEADER]`.
        """
        command = f"UID FETCH {uids} (UID INTERNALDATE {what})"
        found: list[FetchedMessage] = []
        for parts in await self._command(command.encode()):
            text = b"".join(parts[::2])
            uid, stored = _UID.search(text), _STORED.search(text)
            if uid and stored:
                content = parts[1] if len(parts) > 1 else b""
                found.append(FetchedMessage(int(uid[1]), _moment(stored[1]), content))
        return sorted(found, key=lambda each: each.uid)

    def forget_changes(self) -> None:
        """Forget pending notifications: the caller is about to fetch."""
        self._changed = False

    async def idle(self, seconds: float) -> None:
        """Return when the server reports a change, at the latest after so many seconds."""
        # Not all servers report in IDLE a message that arrived just before.
        await self.poll()
        if self._changed:
            return
        tag = await self._send(b"IDLE")
        await self._continuation(tag)
        with anyio.move_on_after(seconds):
            while not self._changed:
                await self._response()
        await self._stream.send(b"DONE\r\n")
        await self._tagged_response(tag)

    async def poll(self) -> None:
        """Poll the server."""
        await self._command(b"NOOP")

    async def logout(self) -> None:
        """Log out."""
        await self._send(b"LOGOUT")

    async def _command(self, command: bytes, *texts: bytes) -> list[list[bytes]]:
        """Send a command with string arguments; return the untagged responses."""
        with anyio.fail_after(_RESPONSE_SECONDS):
            return await self._tagged_response(await self._send(command, *texts))

    async def _send(self, command: bytes, *texts: bytes) -> bytes:
        tag = f"p{next(self._tags)}".encode()
        line = tag + b" " + command
        for text in texts:
            if _PLAIN.fullmatch(text):
                line += b' "' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
                continue
            await self._stream.send(line + b" {%d}\r\n" % len(text))
            await self._continuation(tag)
            line = text
        await self._stream.send(line + b"\r\n")
        return tag

    async def _continuation(self, tag: bytes) -> None:
        """Return when the server requests the rest of a command (a continuation)."""
        with anyio.fail_after(_RESPONSE_SECONDS):
            while not (parts := await self._response())[0].startswith(b"+"):
                self._check(tag, parts[0])

    async def _tagged_response(self, tag: bytes) -> list[list[bytes]]:
        found: list[list[bytes]] = []
        with anyio.fail_after(_RESPONSE_SECONDS):
            while not (parts := await self._response())[0].startswith(tag + b" "):
                found.append(parts)
        self._check(tag, parts[0])
        return [*found, parts]

    def _check(self, tag: bytes, line: bytes) -> None:
        if line.startswith(tag + b" ") and line[len(tag) + 1 :][:2].upper() != b"OK":
            raise Refused(line[len(tag) + 1 :].decode(errors="replace"))

    async def _response(self) -> list[bytes]:
        """Return a response: lines, with literals between them."""
        parts: list[bytes] = []
        while True:
            line = await self._incoming.receive_until(b"\r\n", _LONGEST_LINE)
            parts.append(line)
            literal = _LITERAL.search(line)
            if literal is None:
                break
            size = int(literal[1])
            if size > _LONGEST_LITERAL:
                raise TriggerError(
                    f"the mail server sends {size} bytes, and {_LONGEST_LITERAL} are allowed"
                )
            parts.append(await self._incoming.receive_exactly(size))
        self._changed = self._changed or _EXISTS.match(parts[0]) is not None
        return parts


@asynccontextmanager
async def connected(host: str, port: int, *, tls: bool) -> AsyncIterator[Imap]:
    """Connect for the duration of the block; the greeting is not read yet."""
    stream: ByteStream
    with anyio.fail_after(_RESPONSE_SECONDS):
        if tls:
            stream = await anyio.connect_tcp(host, port, tls=True, tls_standard_compatible=False)
        else:
            stream = await anyio.connect_tcp(host, port)
    session = Imap(stream)
    try:
        yield session
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            # The connection may be lost already.
            with suppress(*ERRORS):
                await session.logout()
            await stream.aclose()


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _integer(pattern: bytes, response: bytes, default: int) -> int:
    found = re.search(pattern, response, re.IGNORECASE)
    return int(found[1]) if found else default


def _moment(text: bytes) -> datetime:
    """Parse a moment in IMAP's form: ` 7-Jul-2026 02:44:25 -0700`."""
    date, time, zone = text.decode().split()
    day, month, year = date.split("-")
    number = _MONTHS.index(month.title()) + 1
    return datetime.strptime(f"{year}-{number}-{day} {time} {zone}", "%Y-%m-%d %H:%M:%S %z")
