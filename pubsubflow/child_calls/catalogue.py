"""The catalogue of plugins: what is installed, and whether it can be imported."""

import time
from collections.abc import Mapping, Sequence

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from pubsubflow.child_calls.messages import ImportedPlugin
from pubsubflow.child_calls.parent import call_in_child
from pubsubflow.errors import NotFound
from pubsubflow.exit_codes import describe_exit
from pubsubflow.model.api.connection_types import CONNECTION_TYPES, ConnectionType
from pubsubflow.model.api.plugins import PluginView
from pubsubflow.plugins import Plugin, installed_plugins
from pubsubflow.runner.task_account import TaskAccount

_START_SECONDS = 30.0
_TARGET = "pubsubflow.child_calls.plugins:import_plugins"
_decode = msgspec.json.Decoder(ImportedPlugin).decode


class _Contents(Struct, frozen=True):
    plugins: tuple[PluginView, ...]
    types: Mapping[str, ConnectionType]


class PluginCatalogue:
    """What is installed beside this daemon; imported in child processes, never in this one.

    Args:
        seconds: Time limit of one import.
        fresh_seconds: How long an answer is good for: a plugin that is installed meanwhile is not
            in use before the daemon starts again.
        account: The account of the processes; None for the daemon's own.

    Attributes:
        account: The same, for other processes of plugins.
    """

    def __init__(
        self,
        *,
        seconds: float = 10.0,
        fresh_seconds: float = 15.0,
        account: TaskAccount | None = None,
    ) -> None:
        self.account = account
        self._seconds = seconds
        self._fresh_seconds = fresh_seconds
        self._lock = anyio.Lock()
        self._contents: _Contents | None = None
        self._read_at = 0.0

    async def plugins(self) -> tuple[PluginView, ...]:
        """Return the plugins, with why any of them cannot be used."""
        return (await self._read()).plugins

    async def types(self) -> list[ConnectionType]:
        """Return the connection types by name: ours, and those of plugins."""
        found = {**(await self._read()).types, **CONNECTION_TYPES}
        return [found[name] for name in sorted(found)]

    async def type(self, name: str) -> ConnectionType:
        """Return a connection type.

        Raises:
            NotFound: There is none of that name.
        """
        # Most are ours: then no process is started.
        own = CONNECTION_TYPES.get(name)
        if own is not None:
            return own
        found = (await self._read()).types.get(name)
        if found is None:
            raise NotFound("connection type", name)
        return found

    async def _read(self) -> _Contents:
        # One reader at a time: however many callers there are, one process is started.
        async with self._lock:
            now = time.monotonic()
            if self._contents is None or now - self._read_at > self._fresh_seconds:
                installed = await anyio.to_thread.run_sync(installed_plugins)
                self._contents = await self._import(installed)
                self._read_at = time.monotonic()
            return self._contents

    async def _import(self, installed: Sequence[Plugin]) -> _Contents:
        outcomes: list[ImportedPlugin] = []
        while len(outcomes) < len(installed):
            # Again without those that are known, when one has ended the process.
            outcomes += await self._import_some(installed[len(outcomes) :])
        views = tuple(map(_view, installed, outcomes))
        types = {each.type.name: each.type for each in outcomes if each.type and not each.error}
        return _Contents(views, types)

    async def _import_some(self, plugins: Sequence[Plugin]) -> list[ImportedPlugin]:
        """Return outcomes up to the first plugin that ends the process, or takes too long."""
        outcomes: list[ImportedPlugin] = []
        error = "its import ended the process"
        seconds = self._seconds * len(plugins) + _START_SECONDS
        async with call_in_child(_TARGET, plugins, seconds, self.account) as lines:
            reader = aiter(lines)
            outcome = ImportedPlugin()
            try:
                while True:
                    with anyio.fail_after(self._seconds if outcome.begun else _START_SECONDS):
                        outcome = _decode(await anext(reader))
                    if not outcome.begun:
                        outcomes.append(outcome)
            except StopAsyncIteration:
                error = f"its import ended the process: {describe_exit(await lines.wait())}"
            except TimeoutError:
                error = f"its import took longer than {self._seconds:g} s"
        if len(outcomes) < len(plugins):
            outcomes.append(ImportedPlugin(error=error))
        return outcomes


def _view(plugin: Plugin, outcome: ImportedPlugin) -> PluginView:
    return PluginView(
        kind=plugin.kind,
        name=plugin.name,
        object=plugin.value,
        distribution=plugin.distribution,
        version=plugin.version,
        error=outcome.error,
    )
