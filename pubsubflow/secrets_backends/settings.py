"""Settings of secrets backends: sections below `secrets`."""

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct


class FilesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `secrets.files`.

    Attributes:
        folder: A folder of files, as Docker and Kubernetes mount secrets.
    """

    folder: Path = Path("/run/secrets")


class VaultSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `secrets.vault`.

    Attributes:
        address: Such as `https://vault.example.com:8200`.
        mount: Of the key-value engine.
        prefix: Path in it: a connection is at `<prefix>/connections/NAME`, a variable at
            `<prefix>/variables/NAME`, a secret at `<prefix>/secrets/NAME`.
        token_file: A file with a token, read for each look-up: an agent may renew it.
        role_id: Of an AppRole, in place of a token.
        secret_id_file: The file with that role's secret id.
        kubernetes_role: A role of the Kubernetes method, by the pod's service account.
        namespace: Of Vault Enterprise.
        ca_file: Certificate of its authority, PEM.
    """

    address: str = ""
    mount: str = "secret"
    prefix: str = "pubsubflow"
    token_file: str | None = None
    role_id: str | None = None
    secret_id_file: str | None = None
    kubernetes_role: str | None = None
    namespace: str | None = None
    ca_file: str | None = None


class AwsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `secrets.aws`, of the backends `aws-secrets-manager` and `aws-ssm`.

    Attributes:
        region: Such as `eu-central-1`; that of the environment if left out.
        prefix: Before the names: `<prefix>/connections/NAME`, and so on as in Vault.
        endpoint_url: In place of AWS's own.
    """

    region: str | None = None
    prefix: str = "pubsubflow"
    endpoint_url: str | None = None


class GoogleSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `secrets.gcp`.

    Attributes:
        project: Id or number of the project.
        prefix: Of the secrets' names: `<prefix>-connections-NAME`, and so on.
        endpoint_url: In place of Google's own.
    """

    project: str = ""
    prefix: str = "pubsubflow"
    endpoint_url: str = "https://secretmanager.googleapis.com"


class AzureSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `secrets.azure`.

    Attributes:
        vault_url: Such as `https://acme.vault.azure.net`.
        prefix: Of the secrets' names: `<prefix>-connections-NAME`, and so on.
    """

    vault_url: str = ""
    prefix: str = "pubsubflow"


class BackendSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which backends there are, and how each is reached.

    Attributes:
        backends: In the order of look-ups, after the environment and before the store: `files`,
            `vault`, `aws-secrets-manager`, `aws-ssm`, `gcp-secret-manager`, `azure-key-vault`,
            or the name of a plugin.
        cache_seconds: How long an answer of theirs is good for.
        files: Of the backend `files`.
        vault: Of the backend `vault`.
        aws: Of both backends of AWS.
        gcp: Of the backend `gcp-secret-manager`.
        azure: Of the backend `azure-key-vault`.
        options: Of plugins: name → keywords of the class.
    """

    backends: tuple[str, ...] = ()
    cache_seconds: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    files: FilesSettings = FilesSettings()
    vault: VaultSettings = VaultSettings()
    aws: AwsSettings = AwsSettings()
    gcp: GoogleSettings = GoogleSettings()
    azure: AzureSettings = AzureSettings()
    options: dict[str, dict[str, Any]] = {}
