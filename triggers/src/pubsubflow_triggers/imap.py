"""IMAP trigger: waits for mail in a folder."""

import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_filled, check_interval
from pubsubflow_triggers.credentials import resolve
from pubsubflow_triggers.imap_session import ERRORS, FetchedMessage, Imap, Refused, connected

_HEADER = "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT DATE)]"
_TEXT = f"BODY.PEEK[]<0.{1 << 18}>"
_LONGEST_TEXT = 16_000
_BATCH_SIZE = 100
_TEMPORARY = ("[UNAVAILABLE]", "[INUSE]", "[LIMIT]")  # RFC 5530
_HIGHEST_PORT = 65535


class MailArrives(Trigger, frozen=True, kw_only=True):
    """Fires with each mail that arrives in a folder of an IMAP server.

    It fires for mail since the start of the wait, by the server's clock, or after the last event of
    the watched dataset. It reads the folder and changes nothing in it. A server with IDLE reports
    mail at once.

    Attributes:
        host: The server.
        user: The account's name.
        password: Its password, `env:NAME` or `connection:NAME`.
        port: 993, or 143 without TLS, if left out.
        folder: Its name on the server, in modified UTF-7.
        sender: Only mail whose From header contains this; case is ignored.
        subject: Only mail whose subject contains this; case is ignored.
        tls: Whether the connection uses TLS from the start.
        interval: Time between two polls, without IDLE or while IDLE reports nothing; at least
            0.1 s.

    The payload is `{"from", "subject", "date", "text", "uid"}`: `date` is the mail's header, `text`
    its plain text, or else its HTML: at most 16,000 characters of the first 256 KiB. The id holds
    the folder's UIDVALIDITY and the mail's UID.
    """

    host: str
    user: str
    password: str
    port: int | None = None
    folder: str = "INBOX"
    sender: str = ""
    subject: str = ""
    tls: bool = True
    interval: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid mailbox."""
        for field in ("host", "user", "password", "folder"):
            check_filled("MailArrives", field, getattr(self, field))
        if self.port is not None and not 0 < self.port <= _HIGHEST_PORT:
            raise DefinitionError(f"MailArrives: {self.port} is not a port")
        if not (self.folder.isascii() and self.folder.isprintable()):
            raise DefinitionError("MailArrives: write the folder as IMAP does, in modified UTF-7")
        check_interval("MailArrives", self.interval)

    def share_key(self) -> str:
        """Share one session among all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Watch the folder, again when the connection is lost, and yield each new mail."""
        backoff = Backoff(ctx, f"{self.host} (IMAP)")
        position = _start_position(ctx)
        port = self.port or (993 if self.tls else 143)
        while True:
            try:
                password = await resolve(ctx, self.password)
                async with connected(self.host, port, tls=self.tls) as session:
                    await session.open(self.user, password, self.folder)
                    ctx.log("imap.watching", host=self.host, folder=self.folder)
                    backoff.reached()
                    while True:
                        for head in await _new(session, position):
                            position = _Position(head.stored, session.validity, head.uid)
                            if self._wants(head):
                                yield await _event(session, position)
                        position = position.at_least(session)
                        await self._pause(ctx, session)
            except Refused as error:
                if not any(code in str(error) for code in _TEMPORARY):
                    raise TriggerError(f"{self.host} (IMAP) refuses: {error}") from error
                await backoff.failed(error)
            except ssl.SSLCertVerificationError as error:
                raise TriggerError(
                    f"{self.host} (IMAP) has an invalid certificate: {error}"
                ) from error
            except ERRORS as error:
                await backoff.failed(error)

    def _wants(self, head: FetchedMessage) -> bool:
        mail = _parsed(head.content)
        return (
            self.sender.lower() in str(mail.get("From", "")).lower()
            and self.subject.lower() in str(mail.get("Subject", "")).lower()
        )

    async def _pause(self, ctx: TriggerContext, session: Imap) -> None:
        if session.idles:
            await session.idle(self.interval.total_seconds())
        else:
            await ctx.sleep(self.interval.total_seconds())
            await session.poll()


class _Position(Struct, frozen=True):
    """The position up to which the folder is read.

    Attributes:
        since: Earlier mail is old, where UIDs do not decide.
        validity: The UIDVALIDITY of `uid`; 0 for none.
        uid: The last UID.
    """

    since: datetime
    validity: int = 0
    uid: int = 0

    def at_least(self, session: Imap) -> "_Position":
        """Return the position after a poll: all mail from before the session has been read."""
        uid = self.uid if self.validity == session.validity else 0
        return _Position(self.since, session.validity, max(uid, session.following - 1))


def _start_position(ctx: TriggerContext) -> _Position:
    if ctx.position is None:
        return _Position(ctx.started_at)
    return msgspec.convert(ctx.position, _Position)


async def _new(session: Imap, position: _Position) -> list[FetchedMessage]:
    """Return the headers of mail after a position; by time if the folder's UIDs have changed."""
    session.forget_changes()
    if position.validity == session.validity:
        heads = await session.fetch(f"{position.uid + 1}:*", _HEADER)
        # `*` is the last message, whether it is new or not.
        return [head for head in heads if head.uid > position.uid]
    # The last reported mail arrived at `since`: exclude that second then.
    old = position.uid != 0
    begin = position.since.replace(microsecond=0) + timedelta(seconds=old)
    found: list[FetchedMessage] = []
    for uids in _batches(await session.since(begin - timedelta(days=1))):
        heads = await session.fetch(",".join(map(str, uids)), _HEADER)
        found += [head for head in heads if begin <= head.stored]
    return found


def _batches(uids: list[int]) -> Iterator[list[int]]:
    rest = iter(uids)
    while batch := list(islice(rest, _BATCH_SIZE)):
        yield batch


async def _event(session: Imap, position: _Position) -> TriggerEvent:
    found = await session.fetch(str(position.uid), _TEXT)
    mail = _parsed(found[0].content if found else b"")
    return TriggerEvent(
        payload={
            "from": str(mail.get("From", "")),
            "subject": str(mail.get("Subject", "")),
            "date": str(mail.get("Date", "")),
            "text": _text(mail),
            "uid": position.uid,
        },
        id=f"{position.validity}:{position.uid}",
        time=position.since,
        position=msgspec.to_builtins(position),
    )


def _parsed(content: bytes) -> EmailMessage:
    mail: Any = message_from_bytes(content, policy=policy.default)
    found: EmailMessage = mail
    return found


def _text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain", "html"))
    if body is None:
        return ""
    data: Any = body.get_payload(decode=True)
    charset = body.get_content_charset("utf-8")
    try:
        text: str = data.decode(charset, "replace")
    except LookupError:
        # An unknown charset.
        text = data.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")[:_LONGEST_TEXT]
