"""What can be set about lineage."""

from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from pubsubflow.errors import ConfigError


class LineageSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say where OpenLineage events go.

    Attributes:
        url: The endpoint, for example `http://marquez:5000/api/v1/lineage`; empty for none.
        namespace: Namespace of all jobs.
        api_key: Sent as a bearer token, if given; never shown.
        timeout_seconds: How long the endpoint may take to answer.
    """

    url: str = ""
    namespace: Annotated[str, Meta(min_length=1)] = "pubsubflow"
    api_key: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0)] = 10.0

    def __repr__(self) -> str:
        key = "***" if self.api_key else ""
        return (
            f"LineageSettings(url={self.place!r}, namespace={self.namespace!r}, api_key={key!r}, "
            f"timeout_seconds={self.timeout_seconds!r})"
        )

    @property
    def place(self) -> str:
        """The endpoint as it may be shown: without a password or a query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if self.url else ""


def check_endpoint(settings: LineageSettings) -> None:
    """Refuse what can be no endpoint.

    Raises:
        ConfigError: The URL is no HTTP URL, or the key cannot stand in a header.
    """
    try:
        parts = urlsplit(settings.url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            "lineage.url is no HTTP address: write it like http://marquez:5000/api/v1/lineage"
        )
    key = settings.api_key
    if key and (not key.isascii() or not key.isprintable() or key.strip() != key):
        raise ConfigError("lineage.api_key holds characters that no HTTP header takes: mend it")
