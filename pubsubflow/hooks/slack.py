"""Slack hook: messages through an incoming webhook or a bot's token."""

from typing import Any

from pubsubflow.errors import ConfigError
from pubsubflow.hooks.http import HttpFailed, HttpHook, HttpResponse
from pubsubflow.model.connections import Connection

_REFUSED = 400
_SHOWN = 200


class SlackHook:
    """Sends messages to Slack.

    Args:
        connection: Of type `slack`.

    Raises:
        ConfigError: The connection has neither a webhook's URL nor a token.
    """

    def __init__(self, connection: Connection) -> None:
        if not connection.secrets.keys() & {"webhook_url", "token"}:
            raise ConfigError(
                f"connection {connection.name!r} needs the secret webhook_url, or token"
            )
        self._secrets = connection.secrets
        self._channel = connection.extra.get("channel")
        self._api = str(connection.extra.get("api_url", "https://slack.com/api"))

    async def send(self, text: str, *, channel: str | None = None, **more: Any) -> None:
        """Send a message.

        Args:
            text: Its text, also where blocks cannot be shown.
            channel: The channel, with a token; the connection's if left out.
            more: Further fields, such as `blocks`.

        Raises:
            HttpFailed: Slack refuses it.
        """
        body = {"text": text, **more}
        if "webhook_url" in self._secrets:
            _check_webhook(await self._post(self._secrets["webhook_url"], body))
            return
        await self.call("chat.postMessage", {**body, "channel": channel or self._channel})

    async def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call a method of the Web API.

        Raises:
            HttpFailed: Slack refuses it.
        """
        response = (await self._post(f"{self._api}/{method}", body, token=True)).check()
        answer: dict[str, Any] = response.json()
        if not answer.get("ok"):
            raise HttpFailed(response.status, f"Slack refuses {method}: {answer.get('error')}")
        return answer

    async def probe(self) -> str:
        """Return what shows that the webhook, or the token, is valid; nothing is sent.

        Raises:
            HttpFailed: It is not.
        """
        if "token" in self._secrets:
            answer = await self.call("auth.test", {})
            return f"{answer.get('user')} in {answer.get('team')}"
        response = await self._post(self._secrets["webhook_url"], {})
        # A valid webhook refuses a message without a text; one that is revoked is not found.
        if response.status != _REFUSED:
            _check_webhook(response)
        return "the webhook exists"

    async def _post(self, url: str, body: dict[str, Any], *, token: bool = False) -> HttpResponse:
        headers = {"Authorization": f"Bearer {self._secrets['token']}"} if token else {}
        async with HttpHook() as http:
            return await http.request("POST", url, json=body, headers=headers)


def _check_webhook(response: HttpResponse) -> None:
    # Not by the response's own check: its error has the address, which is the secret.
    if response.status >= _REFUSED:
        text = response.text[:_SHOWN]
        raise HttpFailed(response.status, f"Slack's webhook answers {response.status}: {text}")


async def check(connection: Connection) -> str:
    """Check the token or the webhook, without a message."""
    return await SlackHook(connection).probe()
