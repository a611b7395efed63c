"""Lineage settings: the OpenLineage endpoint and the namespace."""

from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from pubsubflow.errors import ConfigError
from pubsubflow.model.ranges import Seconds


class LineageSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of lineage.

    Attributes:
        url: The endpoint, for example `http://marquez:5000/api/v1/lineage`; empty for none.
        namespace: Namespace of all jobs.
        api_key: Sent as a bearer token, if given; never shown.
        timeout_seconds: How long the endpoint may take to respond.
    """

    url: str = ""
    namespace: Annotated[str, Meta(min_length=1)] = "pubsubflow"
    api_key: str = ""
    timeout_seconds: Seconds = 10.0

    def __repr__(self) -> str:
        key = "***" if self.api_key else ""
        return (
            f"LineageSettings(url={self.display_url!r}, namespace={self.namespace!r}, "
            f"api_key={key!r}, timeout_seconds={self.timeout_seconds!r})"
        )

    @property
    def display_url(self) -> str:
        """The endpoint without its password and its query, for the log."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if self.url else ""


def check_endpoint(settings: LineageSettings) -> None:
    """Check that the endpoint and the key can be used.

    Raises:
        ConfigError: The URL is not an HTTP URL, or the key does not fit into a header.
    """
    try:
        parts = urlsplit(settings.url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            "lineage.url is not an HTTP address: write it like http://marquez:5000/api/v1/lineage"
        )
    key = settings.api_key
    if key and (not key.isascii() or not key.isprintable() or key.strip() != key):
        raise ConfigError(
            "lineage.api_key holds characters that do not fit into an HTTP header: correct it"
        )
