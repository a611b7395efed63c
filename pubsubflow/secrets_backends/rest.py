"""Reads of secrets over HTTP, with the errors that secrets backends raise."""

from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from pubsubflow.errors import ConfigError, SecretsUnavailable
from pubsubflow.secrets_backends.tokens import AccessTokens

_NOT_FOUND = 404
_FAILED = 400
_BUSY = 429
_BROKEN = 500
_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def read_secret(url: str, tokens: AccessTokens, parameters: Mapping[str, str]) -> Any:
    """Return the JSON of a secret; None if it does not exist.

    Args:
        url: Of the secret.
        tokens: Who this daemon is.
        parameters: Of the URL.

    Raises:
        SecretsUnavailable: The service is out of reach, busy, or does not answer as it should.
        ConfigError: It refuses this daemon.
    """
    headers = {"Authorization": f"Bearer {await tokens.token()}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(
                url, headers=headers, params=dict(parameters), allow_redirects=False
            ) as response,
        ):
            status, data = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise SecretsUnavailable(f"{url} is out of reach ({error!r})") from error
    if status == _NOT_FOUND:
        return None
    if status >= _BROKEN or status == _BUSY:
        raise SecretsUnavailable(f"{url} answers {status}")
    try:
        answer = msgspec.json.decode(data)
    except msgspec.DecodeError:
        answer = None
    if status >= _FAILED:
        raise ConfigError(f"it answers {status} for {url}: {_reason(answer)}")
    if not isinstance(answer, dict):
        raise SecretsUnavailable(f"{url} does not answer with JSON")
    return answer


def _reason(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    text = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(text or "no reason").split())[:300]
