"""Settings of OpenID Connect: the configuration's section `oidc`."""

from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.model.auth import MAX_GRANTS, Grant, Role, covers
from pubsubflow.model.ranges import Seconds

_ROLES = frozenset({Role.VIEWER, Role.OPERATOR, Role.ADMIN})


class OidcSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider at which people sign in, and what their groups may do.

    Attributes:
        issuer: URL of the provider, as its tokens name it; off if empty.
        client_id: The id under which the provider knows this installation.
        client_secret: Its secret there; none for a public client.
        client_secret_file: A file with the secret, in place of it.
        name: What people call the provider, for the button of the page.
        scopes: What is requested of the provider.
        name_claim: The claim that names a person in the audit log: unique, and not of free choice.
        groups_claim: The claim with the groups of a person.
        roles: Group → a role on everything, and grants such as `operator:dag=sales_*`.
        public_url: The URL of this installation, if browsers use another than the daemon sees.
        leeway_seconds: By how much the clocks of provider and daemon may differ.
        timeout_seconds: How long the provider may take to answer.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret: str = ""
    client_secret_file: Path | None = None
    name: str = "OpenID Connect"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "email"
    groups_claim: str = "groups"
    roles: dict[str, tuple[str, ...]] = {}
    public_url: str = ""
    leeway_seconds: Seconds = 60.0
    timeout_seconds: Seconds = 10.0

    def __post_init__(self) -> None:
        """Check what belongs together.

        Raises:
            ConfigError: The provider cannot be used like this.
        """
        if not self.issuer:
            return
        check_provider_url(self.issuer, "oidc.issuer")
        if self.public_url:
            check_provider_url(self.public_url, "oidc.public_url")
        if not self.client_id:
            raise ConfigError("oidc.client_id is missing: register this installation at the issuer")
        if self.client_secret and self.client_secret_file:
            raise ConfigError("set oidc.client_secret or oidc.client_secret_file, not both")
        if "openid" not in self.scopes:
            raise ConfigError("oidc.scopes lacks openid, which requests the ID token")
        for group, texts in self.roles.items():
            try:
                rights_of(texts)
            except InvalidInput as error:
                raise ConfigError(f"oidc.roles.{group}: {error}") from error

    def __repr__(self) -> str:
        """Return it without the secret."""
        return f"OidcSettings(issuer={self.issuer!r}, client_id={self.client_id!r})"

    def secret(self) -> str:
        """Return the client's secret.

        Raises:
            ConfigError: Its file cannot be read.
        """
        text = self.client_secret
        if self.client_secret_file is not None:
            try:
                text = self.client_secret_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"oidc.client_secret_file {self.client_secret_file} cannot be read: {error}"
                ) from error
        return text


def rights_of(texts: tuple[str, ...]) -> tuple[Role, tuple[Grant, ...]]:
    """Return the role on everything and the grants that texts stand for.

    Raises:
        InvalidInput: One is neither.
    """
    role, grants = Role.EMITTER, []
    for text in texts:
        if text in _ROLES:
            role = Role(text) if covers(Role(text), role) else role
        else:
            grants.append(Grant.parse(text))
    return role, tuple(dict.fromkeys(grants))[:MAX_GRANTS]


def check_provider_url(url: str, key: str) -> None:
    """Check that a URL may carry secrets: over TLS, or to this machine.

    Raises:
        ConfigError: It may not.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_here(parts.hostname or ""):
        return
    raise ConfigError(f"{key} must be an https:// URL (or http:// of this machine), not {url!r}")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
