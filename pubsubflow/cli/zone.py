"""The time zone in which commands show times: one for all of them, and named."""

import os
from contextvars import ContextVar
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pubsubflow.errors import ConfigError

_LOCAL = Path("/etc/localtime")
_NAMES_OF_UTC = frozenset({"Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu", "UTC", "Zulu"})
_chosen: ContextVar[tzinfo | None] = ContextVar("zone", default=None)


def choose_zone(name: str) -> None:
    """Show times in a zone from now on.

    Raises:
        ConfigError: It is not an IANA name.
    """
    try:
        _chosen.set(UTC if name in _NAMES_OF_UTC else ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"--tz {name!r} is not a time zone: write a name such as Europe/Warsaw, or UTC"
        ) from error


def zone() -> tzinfo:
    """Return the zone: the chosen one, or that of this machine."""
    return _chosen.get() or _local_zone()


def zone_name() -> str:
    """Return the name of the zone, as headings show it."""
    found = zone()
    return found.key if isinstance(found, ZoneInfo) else str(found)


@cache
def _local_zone() -> tzinfo:
    # By name, so that it is one zone in summer and in winter.
    names = [os.environ.get("TZ", "").removeprefix(":")]
    if not names[0]:
        names = [str(_LOCAL.resolve()).partition("zoneinfo/")[2]]
    for name in filter(None, names):
        if name in _NAMES_OF_UTC:
            return UTC
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return datetime.now().astimezone().tzinfo or UTC
