"""Secrets backend Google Cloud Secret Manager.

Source: its REST API v1, https://cloud.google.com/secret-manager/docs/reference/rest/v1.
"""

import base64
import binascii
import re

from pubsubflow.errors import ConfigError
from pubsubflow.secrets_backends.chain import SecretKind
from pubsubflow.secrets_backends.rest import read_secret
from pubsubflow.secrets_backends.settings import GoogleSettings
from pubsubflow.secrets_backends.tokens import AccessTokens, GoogleTokens

_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_MAX_NAME = 255


class GoogleSecretManagerBackend:
    """Reads the latest versions of secrets.

    Args:
        settings: Project and prefix.
        tokens: Who this daemon is; the application default credentials if left out.

    Raises:
        ConfigError: The project is missing.
    """

    name = "gcp-secret-manager"

    def __init__(self, settings: GoogleSettings, tokens: AccessTokens | None = None) -> None:
        if not settings.project:
            raise ConfigError("configuration: secrets.gcp.project is missing")
        self._settings = settings
        self._tokens = tokens or GoogleTokens()

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return the latest version of a secret: `<prefix>-<kind>-<name>`.

        Raises:
            SecretsUnavailable: The service is out of reach.
            ConfigError: It refuses this daemon, or what it holds is not text.
        """
        # Only these characters can be in a name there; another name cannot exist.
        if _UNFIT.search(name) or len(name) > _MAX_NAME:
            return None
        secret = f"{self._settings.prefix}-{kind}-{name}"
        base = f"{self._settings.endpoint_url.rstrip('/')}/v1/projects/{self._settings.project}"
        url = f"{base}/secrets/{secret}/versions/latest:access"
        answer = await read_secret(url, self._tokens, {})
        if answer is None:
            return None
        try:
            return base64.b64decode(answer["payload"]["data"], validate=True).decode()
        except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
            raise ConfigError(f"{secret} does not hold a text in UTF-8") from None
