"""Executors of tasks: the keyword `executor=`, checked and serialised."""

from typing import Any

import msgspec

from pubsubflow.executors import ExecutorOptions
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.wire.executor_spec import LOCAL, ExecutorSpec

plugins = lazy_module("pubsubflow.plugins")


def executor_spec(value: object) -> ExecutorSpec:
    """Return the serialised form of an executor: its name, or its options.

    Raises:
        TypeError: It is neither.
        ValueError: It is not installed here, or its options cannot be encoded.
    """
    options: dict[str, Any] = {}
    if isinstance(value, str):
        name = value
    elif isinstance(value, ExecutorOptions):
        name, usual = value.executor, _plain(type(value)())
        options = {key: each for key, each in _plain(value).items() if each != usual[key]}
        try:
            msgspec.convert(options, type(value))
        except msgspec.ValidationError as error:
            raise ValueError(f"has an option of another type: {error}") from None
    else:
        raise TypeError('must be the name of an executor, as "local", or the options of one')
    if name != LOCAL and not plugins.has_plugin("executor", name):
        known = ", ".join([LOCAL, *plugins.plugin_names("executor")])
        raise ValueError(
            f"is not installed here (installed: {known}): install its distribution beside the "
            "daemons and where DAG files are checked"
        )
    return ExecutorSpec(name, options)


def _plain(options: ExecutorOptions) -> dict[str, Any]:
    """Return options as JSON values; raise TypeError for what has none."""
    return msgspec.json.decode(msgspec.json.encode(options), type=dict[str, Any])
