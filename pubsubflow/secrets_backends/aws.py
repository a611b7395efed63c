"""Secrets backends of AWS: Secrets Manager, and the Parameter Store of Systems Manager."""

from importlib import import_module
from typing import Any

from pubsubflow.errors import ConfigError, SecretsUnavailable
from pubsubflow.secrets_backends.chain import SecretKind
from pubsubflow.secrets_backends.settings import AwsSettings

_MISSING = frozenset({"ResourceNotFoundException", "ParameterNotFound"})


class AwsSecretsManagerBackend:
    """Reads secrets of Secrets Manager.

    Args:
        settings: Region and prefix; who this daemon is, the environment or the machine says.
    """

    name = "aws-secrets-manager"

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return the text of a secret."""
        key = f"{self._settings.prefix}/{kind}/{name}"
        answer = await _call(self._settings, "secretsmanager", "get_secret_value", SecretId=key)
        found = None if answer is None else answer.get("SecretString")
        return None if found is None else str(found)


class AwsParameterStoreBackend:
    """Reads parameters of Systems Manager, decrypted.

    Args:
        settings: Region and prefix; who this daemon is, the environment or the machine says.
    """

    name = "aws-ssm"

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return the value of a parameter."""
        key = f"/{self._settings.prefix.strip('/')}/{kind}/{name}"
        answer = await _call(self._settings, "ssm", "get_parameter", Name=key, WithDecryption=True)
        return None if answer is None else str(answer["Parameter"]["Value"])


async def _call(settings: AwsSettings, service: str, method: str, **more: Any) -> Any:
    """Call a service; return None for what it does not have."""
    try:
        session = import_module("aiobotocore.session").get_session()
        errors = import_module("botocore.exceptions")
    except ModuleNotFoundError as error:
        raise ConfigError("aiobotocore is missing: pip install 'pubsubflow[aws]'") from error
    options = {"region_name": settings.region, "endpoint_url": settings.endpoint_url}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        async with session.create_client(service, **given) as client:
            return await getattr(client, method)(**more)
    except errors.ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _MISSING:
            return None
        raise ConfigError(f"it refuses {method}: {code}") from None
    except (errors.NoCredentialsError, errors.NoRegionError) as error:
        raise ConfigError(str(error)) from error
    except errors.BotoCoreError as error:
        raise SecretsUnavailable(str(error)) from error
