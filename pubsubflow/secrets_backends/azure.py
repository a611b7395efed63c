"""Secrets backend Azure Key Vault.

Source: its REST API 7.4, https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret.
"""

import re

from pubsubflow.errors import ConfigError
from pubsubflow.secrets_backends.chain import SecretKind
from pubsubflow.secrets_backends.rest import read_secret
from pubsubflow.secrets_backends.settings import AzureSettings
from pubsubflow.secrets_backends.tokens import AccessTokens, AzureTokens

_VERSION = {"api-version": "7.4"}
_NAME = re.compile(r"[0-9A-Za-z-]{1,127}\Z")


class AzureKeyVaultBackend:
    """Reads the current versions of secrets.

    Args:
        settings: The vault and the prefix.
        tokens: Who this daemon is; the default credentials if left out.

    Raises:
        ConfigError: The vault's URL is missing.
    """

    name = "azure-key-vault"

    def __init__(self, settings: AzureSettings, tokens: AccessTokens | None = None) -> None:
        if not settings.vault_url:
            raise ConfigError("configuration: secrets.azure.vault_url is missing")
        self._settings = settings
        self._tokens = tokens or AzureTokens()

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return a secret: `<prefix>-<kind>-<name>`, with `-` in place of `_` and `.`.

        Raises:
            SecretsUnavailable: The vault is out of reach.
            ConfigError: It refuses this daemon, or the secret is disabled.
        """
        secret = re.sub("[_.]", "-", f"{self._settings.prefix}-{kind}-{name}")
        if not _NAME.match(secret):
            return None
        url = f"{self._settings.vault_url.rstrip('/')}/secrets/{secret}"
        answer = await read_secret(url, self._tokens, _VERSION)
        if answer is None:
            return None
        if not isinstance(answer.get("value"), str):
            raise ConfigError(f"{secret} has no value")
        return str(answer["value"])
