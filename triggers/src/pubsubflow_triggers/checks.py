"""Validation of the fields of triggers."""

from collections.abc import Collection
from datetime import timedelta
from urllib.parse import urlsplit

from pubsubflow.errors import DefinitionError, InvalidInput
from pubsubflow.model.connections import read_reference


def check_url(trigger: str, url: str, schemes: Collection[str], *, field: str = "url") -> None:
    """Raise DefinitionError unless a URL has one of the schemes, or refers to one."""
    try:
        if read_reference(url) is not None:
            return
    except InvalidInput as error:
        raise DefinitionError(f"{trigger}: {field}: {error}") from error
    if url.startswith("env:"):
        check_filled(trigger, field, url.removeprefix("env:"))
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in schemes:
        wanted = " or ".join(f"{scheme}://…" for scheme in schemes)
        raise DefinitionError(f"{trigger}: {field} must be {wanted}, env:NAME or connection:NAME")


def check_filled(trigger: str, field: str, value: str) -> None:
    """Raise DefinitionError if a string is empty."""
    if not value:
        raise DefinitionError(f"{trigger}: {field} is empty")


def check_interval(trigger: str, interval: timedelta) -> None:
    """Raise DefinitionError for an interval below 0.1 s."""
    if interval < timedelta(seconds=0.1):
        raise DefinitionError(f"{trigger}: interval must be at least 0.1 s, not {interval}")
