"""The operator that sends a mail."""

import hashlib
import mimetypes
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import InvalidInput
from pubsubflow.hooks.connection import read_connection
from pubsubflow.hooks.smtp import SmtpHook
from pubsubflow.model.connections import Connection

_MAX_ATTACHED_BYTES = 25 << 20

Addresses = str | Sequence[str]


class EmailOperator(Operator):
    """Sends a mail; the result is the list of its recipients.

    Args:
        to: Recipients: a list, or a string with commas.
        subject: The subject.
        text: The text; from `html` if left out.
        html: The text in HTML, also under its old name `html_content`.
        files: Paths of files to attach.
        cc: Recipients of a copy.
        bcc: Recipients whom the others do not see.
        sender: In place of the connection's `from`.
        reply_to: Where answers go.
        headers: Further headers.
        connection: The mail server, a connection of type `smtp`.
    """

    template_fields = (
        *("to", "subject", "text", "html", "files", "cc", "bcc", "sender", "reply_to", "headers"),
    )

    def __init__(
        self,
        *,
        to: Addresses,
        subject: str,
        text: str | None = None,
        html: str | None = None,
        html_content: str | None = None,
        files: Sequence[str | Path] = (),
        cc: Addresses = (),
        bcc: Addresses = (),
        sender: str | None = None,
        reply_to: str | None = None,
        headers: Mapping[str, str] | None = None,
        connection: str | Connection = "smtp_default",
        **kwargs: Any,
    ) -> None:
        self.to, self.cc, self.bcc = to, cc, bcc
        self.subject, self.text, self.html = subject, text, html or html_content
        self.files = files if isinstance(files, str) else [_path(each) for each in files]
        self.sender, self.reply_to, self.headers = sender, reply_to, dict(headers or {})
        self.connection = connection
        if self.text is None and self.html is None:
            raise definition_error("a mail needs text= or html=", task_id=kwargs.get("task_id"))
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> list[str]:
        """Send the mail."""
        found = await read_connection(ctx, self.connection)
        hook = SmtpHook(found)
        recipients = [*_addresses(self.to), *_addresses(self.cc), *_addresses(self.bcc)]
        if not recipients:
            raise InvalidInput("the mail has no recipient: to, cc and bcc are empty")
        message = await anyio.to_thread.run_sync(self._message, ctx, self.sender or hook.sender)
        async with hook as smtp:
            refused = await smtp.send(message, recipients)
        for address, reason in refused.items():
            ctx.log.warning("mail.recipient_refused", address=address, reason=reason)
        ctx.log.info("mail.sent", recipients=len(recipients) - len(refused))
        return [each for each in recipients if each not in refused]

    def _message(self, ctx: Context, sender: str) -> EmailMessage:
        if not sender:
            raise InvalidInput(
                "the mail has no sender: give sender=, or the connection's extra `from`"
            )
        message = EmailMessage()
        message["From"], message["To"] = sender, ", ".join(_addresses(self.to))
        message["Subject"], message["Date"] = _one_line(self.subject), formatdate()
        message["Message-ID"] = _message_id(ctx, sender)
        for name, value in (("Cc", ", ".join(_addresses(self.cc))), ("Reply-To", self.reply_to)):
            if value:
                message[name] = value
        for name, value in self.headers.items():
            message[name] = value
        if self.text is not None:
            message.set_content(self.text)
        if self.html is not None and self.text is not None:
            message.add_alternative(self.html, subtype="html")
        elif self.html is not None:
            message.set_content(self.html, subtype="html")
        self._attach(message)
        return message

    def _attach(self, message: EmailMessage) -> None:
        total = 0
        for path in map(Path, self.files):
            data = path.read_bytes()
            total += len(data)
            if total > _MAX_ATTACHED_BYTES:
                raise InvalidInput(f"the files of the mail have more than 25 MiB, with {path}")
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            main, _, sub = kind.partition("/")
            message.add_attachment(data, maintype=main, subtype=sub, filename=path.name)


def _message_id(ctx: Context, sender: str) -> str:
    """Return an id that a repeated delivery of the same attempt has, too."""
    # A worker that dies after the server took the mail sends it again: receivers see one.
    task = f"{ctx.run.run_id}/{ctx.task.task_id}/{ctx.task.map_index}/{ctx.attempt}"
    digest = hashlib.sha256(task.encode()).hexdigest()[:32]
    domain = parseaddr(sender)[1].rpartition("@")[2] or make_msgid().rpartition("@")[2].rstrip(">")
    return f"<{digest}@{domain}>"


def _addresses(given: Addresses) -> list[str]:
    parts = given.split(",") if isinstance(given, str) else given
    return [part.strip() for part in parts if part.strip()]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _path(path: str | Path) -> str:
    return str(path)
