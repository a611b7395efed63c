"""The import of plugins in a child process, one after the other."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import msgspec

from pubsubflow.authoring.schedules.own_timetables import Timetable
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.child_calls.messages import ImportedPlugin
from pubsubflow.executors import Executor
from pubsubflow.model.api.connection_types import ConnectionType
from pubsubflow.model.triggers import Trigger
from pubsubflow.model.webhooks import PluginVerifier
from pubsubflow.plugins import Plugin

_decode = msgspec.json.Decoder(list[Plugin]).decode
_BASES: dict[str, type] = {
    "trigger": Trigger,
    "operator": Operator,
    "timetable": Timetable,
    "verifier": PluginVerifier,
    "executor": Executor,
}


def import_plugins(argument: bytes) -> Iterator[ImportedPlugin]:
    """Import plugins; yield before each one, and what came of it."""
    for plugin in _decode(argument):
        yield ImportedPlugin(begun=True)
        try:
            found = _load(plugin.value)
            error = _misfit(plugin, found)
        except BaseException as failure:  # noqa: BLE001 - a module may raise anything, SystemExit too
            yield ImportedPlugin(error=" ".join(f"{type(failure).__name__}: {failure}".split()))
            continue
        declared = found if isinstance(found, ConnectionType) else None
        yield ImportedPlugin(error=error, type=declared)


def _load(value: str) -> Any:
    module, _, path = value.partition(":")
    found: Any = import_module(module.strip())
    for name in filter(None, path.partition("[")[0].strip().split(".")):
        found = getattr(found, name)
    return found


def _misfit(plugin: Plugin, found: Any) -> str | None:
    """Return why an object cannot be a plugin of its kind."""
    if plugin.kind == "connection-type":
        if not isinstance(found, ConnectionType):
            return f"{plugin.value} is not a pubsubflow.ConnectionType"
        if found.name != plugin.name:
            return f"{plugin.value} is named {found.name!r}: name its entry point so, too"
        return None
    base = _BASES.get(plugin.kind)
    if base is None or (isinstance(found, type) and issubclass(found, base)):
        return None
    return f"{plugin.value} is not a subclass of pubsubflow.{base.__name__}"
