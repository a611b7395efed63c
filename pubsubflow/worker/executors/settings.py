"""Settings of executors, and what the process of an attempt gets at its start."""

from pathlib import Path
from typing import Any, get_origin

import msgspec
from msgspec import Struct

from pubsubflow.bus import BusSettings
from pubsubflow.errors import ConfigError
from pubsubflow.executors import Executor, ResultKeeper
from pubsubflow.model.ranges import Count
from pubsubflow.model.wire.executor_spec import LOCAL
from pubsubflow.plugins import load_plugin
from pubsubflow.runner.task_account import TaskAccount
from pubsubflow.worker.settings import ResultStoreSettings, WorkerSettings

ENVIRONMENT = "PUBSUBFLOW_ATTEMPT"
"""The variable in which the process of an attempt finds its settings, as JSON."""

_NOT_NAMES = (LOCAL, "sync", "async")


class AttemptSettings(Struct, frozen=True, kw_only=True):
    """What the process of an attempt gets at its start.

    Attributes:
        subject: Of its order in the stream of tasks.
        executor: The name of the executor that started it.
        again: Whether the same attempt may have begun before.
        bus: How to reach NATS.
        worker: Limits and times, as in the worker that started it.
        results: Which results are large, and where these go.
        account: That of user code, where the process is root and on the machine of the worker.
        keeper: What keeps large results of tasks that say so, with the executor.
    """

    subject: str
    executor: str
    again: bool = False
    bus: BusSettings = BusSettings()
    worker: WorkerSettings = msgspec.field(default_factory=WorkerSettings)
    results: ResultStoreSettings = ResultStoreSettings()
    account: TaskAccount | None = None
    keeper: ResultKeeper | None = None


class OfferedExecutor(Struct, frozen=True):
    """An executor that a worker offers.

    Attributes:
        name: The name of its plugin.
        executor: What runs attempts.
        slots: How many of its attempts the worker has at once.
        nats_url: The address of NATS as the attempts reach it; empty for the worker's own.
    """

    name: str
    executor: Executor
    slots: int = 100
    nats_url: str = ""


class _Common(Struct, frozen=True):
    slots: Count = 100
    nats_url: str = ""


def load_executor(name: str, section: dict[str, Any]) -> OfferedExecutor:
    """Import the executor of a plugin, and give it its section of the configuration.

    Raises:
        ConfigError: It is not installed, cannot be imported, or its settings are wrong.
    """
    path = f"executors.{name}"
    if name in _NOT_NAMES:
        raise ConfigError(f"configuration: {path}: no plugin can have that name")
    found = load_plugin("executor", name)
    if not (isinstance(found, type) and issubclass(found, Executor)):
        raise ConfigError(f"executor {name!r} is not a subclass of pubsubflow.executors.Executor")
    lists = {each.name for each in msgspec.structs.fields(found.Settings) if _is_list(each.type)}
    own = {
        # As in the environment: a,b.
        key: each.split(",") if key in lists and isinstance(each, str) else each
        for key, each in section.items()
        if key not in _Common.__struct_fields__
    }
    try:
        common = msgspec.convert(section, _Common, strict=False)
        settings = msgspec.convert(own, found.Settings, strict=False, dec_hook=_read_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {path}: {error}") from error
    return OfferedExecutor(name, found(settings), common.slots, common.nats_url)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple)


def _read_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser().absolute()
    raise TypeError(f"expected a {kind.__name__}")


def attempt_settings(
    offered: OfferedExecutor,
    worker: WorkerSettings,
    results: ResultStoreSettings,
    bus: BusSettings,
    account: TaskAccount | None,
) -> AttemptSettings:
    """Return what the process of an attempt gets; its order is still missing.

    Args:
        offered: The executor.
        worker: The settings of the worker that starts it.
        results: Which results are large, and where these go.
        bus: The worker's connection.
        account: The account of user code on the worker's machine.
    """
    alone = msgspec.structs.replace(
        worker,
        executor=LOCAL,
        only_executors=False,
        processes=1,
        async_slots=1,
        warm_processes=0,
        memory=None,
        cpu=None,
        cache_dir=None,
    )
    return AttemptSettings(
        subject="",
        executor=offered.name,
        bus=msgspec.structs.replace(bus, url=offered.nats_url or bus.url),
        worker=alone,
        results=results,
        account=account,
        keeper=offered.executor.keeper,
    )
