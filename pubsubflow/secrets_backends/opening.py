"""The opening of secrets backends: what the configuration names, in its order."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from pubsubflow.errors import ConfigError
from pubsubflow.plugins import load_plugin
from pubsubflow.secrets_backends.chain import SecretsBackend, SecretsChain
from pubsubflow.secrets_backends.files import FilesBackend
from pubsubflow.secrets_backends.settings import BackendSettings


def open_backends(settings: BackendSettings) -> SecretsChain:
    """Return the chain of the configured backends; none of them is connected yet.

    Args:
        settings: Which ones, and how each is reached.

    Raises:
        ConfigError: A name is unknown, or a setting of a backend is missing.
    """
    # Late, as most daemons use none of these, and their libraries are expensive.
    own: dict[str, Callable[[], SecretsBackend]] = {
        "files": lambda: FilesBackend(settings.files.folder),
        "vault": lambda: _late("vault", "VaultBackend", settings.vault),
        "aws-secrets-manager": lambda: _late("aws", "AwsSecretsManagerBackend", settings.aws),
        "aws-ssm": lambda: _late("aws", "AwsParameterStoreBackend", settings.aws),
        "gcp-secret-manager": lambda: _late("google", "GoogleSecretManagerBackend", settings.gcp),
        "azure-key-vault": lambda: _late("azure", "AzureKeyVaultBackend", settings.azure),
    }
    found = [
        own[name]() if name in own else _plugin(name, settings.options.get(name, {}))
        for name in settings.backends
    ]
    return SecretsChain(found, cache_seconds=settings.cache_seconds)


def _late(module: str, name: str, settings: object) -> SecretsBackend:
    made = getattr(import_module(f"pubsubflow.secrets_backends.{module}"), name)(settings)
    return cast("SecretsBackend", made)


def _plugin(name: str, options: Mapping[str, Any]) -> SecretsBackend:
    """Return the backend of a plugin, which only who configures the daemon can name."""
    try:
        return cast("SecretsBackend", load_plugin("secrets-backend", name)(**options))
    except ConfigError as error:
        raise ConfigError(f"configuration: secrets.backends: {error}") from error
    except TypeError as error:
        raise ConfigError(f"configuration: secrets.options.{name}: {error}") from error
