"""SMTP hook: sends mails through the server of a connection."""

from email.message import EmailMessage
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pubsubflow.errors import ConfigError
from pubsubflow.model.connections import Connection
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    import aiosmtplib
else:
    aiosmtplib = lazy_module("aiosmtplib")


class SmtpHook:
    """A session with a mail server; an asynchronous context manager.

    Args:
        connection: Of type `smtp`.

    Raises:
        ConfigError: The connection names no server.
    """

    def __init__(self, connection: Connection) -> None:
        if connection.host is None:
            raise ConfigError(
                f"connection {connection.name!r} has no uri such as smtp://ann@mail.example.com:587"
            )
        extra, tls = connection.extra, urlsplit(connection.uri or "").scheme == "smtps"
        self.sender = str(extra.get("from") or connection.user or "")
        self._options: dict[str, Any] = {
            "hostname": connection.host,
            "port": connection.port,
            "use_tls": tls,
            "start_tls": False if tls else extra.get("starttls"),
            "username": connection.user if connection.password else None,
            "password": connection.password,
            "timeout": float(extra.get("timeout", 30)),
        }

    async def __aenter__(self) -> Self:
        self._client = aiosmtplib.SMTP(**self._options)
        await self._client.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._client.is_connected:
            await self._client.quit()
        else:
            self._client.close()

    async def probe(self) -> None:
        """Do nothing on the server: it answers, and has accepted the account."""
        await self._client.noop()

    async def send(self, message: EmailMessage, recipients: list[str]) -> dict[str, str]:
        """Send a mail; return refused recipients with the server's reasons.

        Args:
            message: With a sender.
            recipients: To whom, those in `Bcc` included.

        Raises:
            aiosmtplib.SMTPException: The server refuses it, or all recipients.
        """
        refused, _ = await self._client.send_message(message, recipients=recipients)
        return {address: str(answer.message) for address, answer in refused.items()}


async def check(connection: Connection) -> str:
    """Connect, authenticate and greet."""
    async with SmtpHook(connection) as smtp:
        await smtp.probe()
    return f"{connection.host} takes mails" + (
        f" from {connection.user}" if connection.user else ""
    )
