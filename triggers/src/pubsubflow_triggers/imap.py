"""Waiting for mail."""

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
from pubsubflow_triggers.imap_session import ERRORS, Found, Imap, Refused, connected

_HEADER = "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT DATE)]"
_TEXT = f"BODY.PEEK[]<0.{1 << 18}>"
_LONGEST_TEXT = 16_000
_AT_ONCE = 100
_PASSING = ("[UNAVAILABLE]", "[INUSE]", "[LIMIT]")  # RFC 5530
_HIGHEST_PORT = 65535


class MailArrives(Trigger, frozen=True, kw_only=True):
    """Fires with each mail that comes into a folder of an IMAP server.

    Fires for mail that came since the wait began, by the server's clock, or after the last event of
    the watched dataset. It reads the folder and changes nothing in it. A server that offers IDLE
    tells of mail at once.

    Attributes:
        host: The server.
        user: The account's name.
        password: Its password, `env:NAME` or `connection:NAME`.
        port: 993, or 143 without TLS, if left out.
        folder: As the server writes its name.
        sender: Only mail whose From header contains this; case does not count.
        subject: Only mail whose subject contains this; case does not count.
        tls: Whether to speak TLS from the first byte.
        interval: How long to wait between two looks; where IDLE is offered, when nobody tells of
            mail. At least 0.1 s.

    The payload is `{"from", "subject", "date", "text", "uid"}`: `date` as the mail has it, `text`
    its plain text, or else its HTML: 16,000 characters at most of the first 256 KiB. The id holds
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
        """Raise DefinitionError for what is no mailbox."""
        for field in ("host", "user", "password", "folder"):
            check_filled("MailArrives", field, getattr(self, field))
        if self.port is not None and not 0 < self.port <= _HIGHEST_PORT:
            raise DefinitionError(f"MailArrives: {self.port} is no port")
        if not (self.folder.isascii() and self.folder.isprintable()):
            raise DefinitionError("MailArrives: write the folder as IMAP does, in modified UTF-7")
        check_interval("MailArrives", self.interval)

    def share_key(self) -> str:
        """Let one session look for all."""
        return msgspec.json.encode(self).decode()

    async def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Watch the folder, again when the connection is lost, and yield each new mail."""
        backoff = Backoff(ctx, f"{self.host} (IMAP)")
        place = _place(ctx)
        port = self.port or (993 if self.tls else 143)
        while True:
            try:
                password = await resolve(ctx, self.password)
                async with connected(self.host, port, tls=self.tls) as session:
                    await session.open(self.user, password, self.folder)
                    ctx.log("imap.watching", host=self.host, folder=self.folder)
                    backoff.reached()
                    while True:
                        for head in await _new(session, place):
                            place = _Place(head.stored, session.validity, head.uid)
                            if self._wants(head):
                                yield await _event(session, place)
                        place = place.at_least(session)
                        await self._pause(ctx, session)
            except Refused as error:
                if not any(code in str(error) for code in _PASSING):
                    raise TriggerError(f"{self.host} (IMAP) refuses: {error}") from error
                await backoff.failed(error)
            except ssl.SSLCertVerificationError as error:
                raise TriggerError(f"{self.host} (IMAP) has a bad certificate: {error}") from error
            except ERRORS as error:
                await backoff.failed(error)

    def _wants(self, head: Found) -> bool:
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
            await session.look()


class _Place(Struct, frozen=True):
    """Up to where the folder is read.

    Attributes:
        since: Mail that came before is old, where UIDs do not tell.
        validity: The UIDVALIDITY for which `uid` holds; 0 for none.
        uid: The last UID.
    """

    since: datetime
    validity: int = 0
    uid: int = 0

    def at_least(self, session: Imap) -> "_Place":
        """Return the place after a look: all that was there when the folder was opened is read."""
        uid = self.uid if self.validity == session.validity else 0
        return _Place(self.since, session.validity, max(uid, session.following - 1))


def _place(ctx: TriggerContext) -> _Place:
    if ctx.position is None:
        return _Place(ctx.started_at)
    return msgspec.convert(ctx.position, _Place)


async def _new(session: Imap, place: _Place) -> list[Found]:
    """Return the headers of mail after a place; by time if the folder's UIDs say nothing."""
    session.forget_news()
    if place.validity == session.validity:
        heads = await session.fetch(f"{place.uid + 1}:*", _HEADER)
        return [head for head in heads if head.uid > place.uid]  # `*` is the last, new or not
    old = place.uid != 0  # the last mail that was told of came at `since`
    begin = place.since.replace(microsecond=0) + timedelta(seconds=old)
    found: list[Found] = []
    for uids in _portions(await session.since(begin - timedelta(days=1))):
        heads = await session.fetch(",".join(map(str, uids)), _HEADER)
        found += [head for head in heads if begin <= head.stored]
    return found


def _portions(uids: list[int]) -> Iterator[list[int]]:
    rest = iter(uids)
    while portion := list(islice(rest, _AT_ONCE)):
        yield portion


async def _event(session: Imap, place: _Place) -> TriggerEvent:
    found = await session.fetch(str(place.uid), _TEXT)
    mail = _parsed(found[0].content if found else b"")
    return TriggerEvent(
        payload={
            "from": str(mail.get("From", "")),
            "subject": str(mail.get("Subject", "")),
            "date": str(mail.get("Date", "")),
            "text": _text(mail),
            "uid": place.uid,
        },
        id=f"{place.validity}:{place.uid}",
        time=place.since,
        position=msgspec.to_builtins(place),
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
    except LookupError:  # nobody knows that charset
        text = data.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")[:_LONGEST_TEXT]
