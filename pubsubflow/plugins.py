"""Plugins of other distributions, found by entry points: triggers, operators and others."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec
from msgspec import Struct

from pubsubflow.errors import ConfigError, DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger
from pubsubflow.model.webhooks import InstalledVerifier, PluginVerifier

TRIGGER_GROUP = "pubsubflow.triggers"

GROUPS: Mapping[str, str] = {
    "trigger": TRIGGER_GROUP,
    "operator": "pubsubflow.operators",
    "notifier": "pubsubflow.notifiers",
    "connection-type": "pubsubflow.connection_types",
    "secrets-backend": "pubsubflow.secrets_backends",
    "log-store": "pubsubflow.log_stores",
    "executor": "pubsubflow.executors",
    "timetable": "pubsubflow.timetables",
    "verifier": "pubsubflow.verifiers",
}
"""Kinds of plugins, and the group of entry points of each."""

_OWN_TRIGGERS = {
    "pubsubflow.RunEnded": "pubsubflow.model.triggers:RunEnded",
    "pubsubflow.AirflowTrigger": "pubsubflow.airflow.outside.triggers:AirflowTrigger",
    "airflow.AssetEvents": "pubsubflow.airflow.observe.watching:AirflowAssetEvents",
    "airflow.Runs": "pubsubflow.airflow.observe.watching:AirflowRuns",
}

_OWN: Mapping[str, Mapping[str, str]] = {
    "executor": {
        "dask": "pubsubflow.dask.executor:DaskExecutor",
        "kubernetes": "pubsubflow.kubernetes.executor:KubernetesExecutor",
    },
}
"""Plugins of ours that need an extra when they are used."""

_encode = msgspec.msgpack.Encoder().encode


class Plugin(Struct, frozen=True):
    """A plugin, as the metadata of its distribution declares it; nothing of it is imported.

    Attributes:
        kind: One of `GROUPS`.
        name: The name of its entry point.
        value: `package.module:object`.
        distribution: The distribution that declares it.
        version: That distribution's.
    """

    kind: str
    name: str
    value: str
    distribution: str
    version: str


def installed_plugins() -> list[Plugin]:
    """Return what is declared in this environment, by kind and name."""
    found = [
        Plugin(kind, point.name, point.value, *_distribution(point))
        for kind, group in GROUPS.items()
        for point in entry_points(group=group)
    ]
    kinds = list(GROUPS)
    return sorted(found, key=lambda each: (kinds.index(each.kind), each.name))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return ("", "") if point.dist is None else (point.dist.name, point.dist.version)


# Cached: reading the metadata of all installed distributions takes milliseconds.
@cache
def _points(kind: str) -> dict[str, EntryPoint]:
    own = (EntryPoint(name, value, GROUPS[kind]) for name, value in _OWN.get(kind, {}).items())
    return {point.name: point for point in (*own, *entry_points(group=GROUPS[kind]))}


def has_plugin(kind: str, name: str) -> bool:
    """Return whether a plugin is installed; nothing of it is imported."""
    return name in _points(kind)


def plugin_names(kind: str) -> list[str]:
    """Return the names of the plugins of a kind that are installed, in order."""
    return sorted(_points(kind))


def load_plugin(kind: str, name: str) -> Any:
    """Import a plugin and return its object.

    Args:
        kind: One of `GROUPS`.
        name: The name of its entry point.

    Raises:
        ConfigError: None of that name is installed, or it cannot be imported.
    """
    point = _points(kind).get(name)
    if point is None:
        known = ", ".join(sorted(_points(kind))) or "none"
        raise ConfigError(f"no {kind} {name!r} is installed here (installed: {known})")
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(
            f"{kind} {name!r} ({point.value}) cannot be imported: {error!r}"
        ) from error


@cache
def _triggers() -> dict[str, EntryPoint]:
    own = (EntryPoint(name, value, TRIGGER_GROUP) for name, value in _OWN_TRIGGERS.items())
    return {point.name: point for point in own} | _points("trigger")


@cache
def trigger_name(kind: type[Trigger]) -> str:
    """Return the name under which a trigger's type is registered.

    Raises:
        DefinitionError: It is not registered.
    """
    value = f"{kind.__module__}:{kind.__qualname__}"
    for name, point in _triggers().items():
        if point.value.replace(" ", "") == value:
            return name
    raise DefinitionError(
        f"trigger {kind.__qualname__} is not registered, so no triggerer can find it: put it in an "
        f'installed package with the entry point `"name" = "{value}"` in the group '
        f"{TRIGGER_GROUP!r}"
    )


@cache
def trigger_type(name: str) -> type[Trigger]:
    """Return the type that is registered under a name.

    Raises:
        TriggerError: No type is, it cannot be imported, or it is not a trigger.
    """
    point = _triggers().get(name)
    if point is None:
        raise TriggerError(
            f"trigger {name!r} is not installed here: install its package beside the daemon, and "
            "restart that"
        )
    try:
        found: Any = point.load()
    except Exception as error:
        raise TriggerError(f"trigger {name!r} cannot be imported: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, Trigger)):
        raise TriggerError(
            f"trigger {name!r}: {point.value} is not a subclass of pubsubflow.Trigger"
        )
    return found


def encode_verifier(verifier: PluginVerifier) -> InstalledVerifier:
    """Return the serialised form of a plugin's verifier.

    Raises:
        DefinitionError: It is not registered, or a field is not a plain value.
    """
    kind = type(verifier)
    value = f"{kind.__module__}:{kind.__qualname__}"
    name = next((name for name, point in _points("verifier").items() if point.value == value), None)
    if name is None:
        raise DefinitionError(
            f"verifier {kind.__qualname__} is not registered, so no daemon can find it: put it in "
            f'an installed package with the entry point `"name" = "{value}"` in the group '
            f"{GROUPS['verifier']!r}"
        )
    left_out = {"secret", kind.__struct_config__.tag_field}
    try:
        fields = msgspec.json.decode(msgspec.json.encode(verifier), type=dict[str, Any])
    except TypeError as error:
        raise DefinitionError(f"verifier {kind.__qualname__} cannot be encoded: {error}") from error
    plain = {key: each for key, each in fields.items() if key not in left_out}
    return InstalledVerifier(name, plain, verifier.secrets())


def decode_verifier(stored: InstalledVerifier) -> PluginVerifier:
    """Import the verifier of a plugin, without its secrets.

    Raises:
        ConfigError: It is not installed, cannot be imported, is not a verifier, or its fields are
            those of another version.
    """
    found = load_plugin("verifier", stored.name)
    if not (isinstance(found, type) and issubclass(found, PluginVerifier)):
        raise ConfigError(f"verifier {stored.name!r} is not a subclass of PluginVerifier")
    config = found.__struct_config__
    try:
        return msgspec.convert(stored.fields | {str(config.tag_field): config.tag}, found)
    except (msgspec.ValidationError, DefinitionError) as error:
        raise ConfigError(
            f"verifier {stored.name!r} cannot decode its fields: {error}; install the same version "
            "here and where DAG files are loaded"
        ) from error


def encode_trigger(trigger: Trigger) -> bytes:
    """Return a trigger's fields as a MessagePack map.

    Raises:
        DefinitionError: A field cannot be encoded.
    """
    try:
        return _encode(trigger)
    except TypeError as error:
        name = type(trigger).__qualname__
        raise DefinitionError(f"trigger {name} cannot be encoded: {error}") from error


def decode_trigger(name: str, data: bytes) -> Trigger:
    """Return a trigger from its registered name and its fields.

    Raises:
        TriggerError: It is not installed, or its fields are those of another version.
    """
    try:
        return msgspec.msgpack.decode(data, type=trigger_type(name))
    except (msgspec.DecodeError, DefinitionError) as error:
        raise TriggerError(
            f"trigger {name!r} cannot decode its fields: {error}; install the same version here "
            "and where the task runs"
        ) from error
