"""Preparation: what each attempt would do first is done once, before processes are forked."""

import functools
import importlib
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import structlog
from airflow.sdk.api.client import get_hostname
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time import task_runner
from airflow.sdk.listener import get_listener_manager
from pydantic import JsonValue, TypeAdapter

from pubsubflow.airflow.inside.loading.core_timetables import core_timetable

# Imported by the SDK in the middle of an attempt, or by most files: then all of them share it.
_MODULES = (
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.sdk.bases.sensor",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.decorators",
    "airflow.timetables.simple",
    "airflow.utils.net",
    "encodings.idna",
    "jinja2.ext",
)


def prepare_host() -> None:
    """Import what attempts need, and find out the machine's name, which may take a while."""
    for name in _MODULES:
        with suppress(ImportError):
            importlib.import_module(name)
    with suppress(Exception):  # it is found out again where it is needed
        get_hostname()
    _share_adapters()
    _share_defaults()


def _share_adapters() -> None:
    """Make type adapters once: the SDK makes one for each template field of each attempt."""
    if getattr(task_runner, "TypeAdapter", None) is TypeAdapter:
        shared: Any = functools.cache(TypeAdapter)
        shared(JsonValue)
        task_runner.TypeAdapter = shared


def _share_defaults() -> None:
    """Look defaults of the configuration up once: the SDK does so a dozen times in each attempt."""
    look_up = conf.get_default_value
    known = functools.cache(look_up)

    def shared(section: str, key: str, **given: Any) -> Any:
        found = known(section, key) if given.keys() <= {"fallback"} else None
        return look_up(section, key, **given) if found is None else found

    conf.get_default_value = shared


def prepare_attempts(dags: Collection[Any]) -> None:
    """Register the listeners of plugins, which have been loaded, and types of results; make dates.

    Args:
        dags: Of the file.
    """
    with suppress(Exception):  # an attempt says what is wrong
        get_listener_manager()
    for dag in dags:
        with suppress(Exception):  # likewise
            core_timetable(dag.timetable)
    # Since 3.3 results of the types that operators declare are read only after this.
    register = getattr(task_runner, "_register_deserialization_allowed_classes", None)
    if register is not None:
        for dag in dags:
            register(dag, structlog.get_logger("task"))
