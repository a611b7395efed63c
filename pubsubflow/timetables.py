"""Timetables of plugins: `from pubsubflow.timetables import NAME`."""

from typing import Any

from pubsubflow.authoring.schedules.own_timetables import Timetable
from pubsubflow.errors import ConfigError
from pubsubflow.plugins import has_plugin, load_plugin

__all__ = ["Timetable"]

_KIND = "timetable"


def __getattr__(name: str) -> Any:
    """Import the timetable of a plugin at its first use.

    Raises:
        AttributeError: No plugin that is installed here has one of that name.
        ConfigError: It cannot be imported, or is not a subclass of Timetable.
    """
    if name.startswith("_") or not has_plugin(_KIND, name):
        raise AttributeError(
            f"module {__name__!r} has no timetable {name!r}, and no plugin that is installed here "
            "has one: `pubsubflow plugins list`"
        )
    found = load_plugin(_KIND, name)
    if not (isinstance(found, type) and issubclass(found, Timetable)):
        raise ConfigError(f"timetable {name!r} is not a subclass of pubsubflow.Timetable")
    globals()[name] = found
    return found
