"""Preparation: what each attempt would do first is done once, before processes are forked."""

import importlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import structlog
from airflow.sdk.api.client import get_hostname
from airflow.sdk.execution_time import task_runner
from airflow.sdk.listener import get_listener_manager

# Imported by the SDK in the middle of an attempt.
_MODULES = (
    "airflow.sdk.definitions.asset.metadata",
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


def prepare_attempts(dags: Iterable[Any]) -> None:
    """Register the listeners of plugins, which have been loaded, and types of results.

    Args:
        dags: Of the file.
    """
    with suppress(Exception):  # an attempt says what is wrong
        get_listener_manager()
    # Since 3.3 results of the types that operators declare are read only after this.
    register = getattr(task_runner, "_register_deserialization_allowed_classes", None)
    if register is not None:
        for dag in dags:
            register(dag, structlog.get_logger("task"))
