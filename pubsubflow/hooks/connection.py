"""Connections of hooks, read without blocking the tasks beside; libraries of extras."""

import copy
from importlib import import_module
from typing import Any

import anyio.to_thread

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.errors import ConfigError
from pubsubflow.model.connections import Connection


async def read_connection(ctx: Context, connection: str | Connection) -> Connection:
    """Return a connection with its secrets; the task's log masks them.

    Args:
        ctx: The task's context.
        connection: Its name; a Connection is returned as it is.

    Raises:
        ConfigError: It does not exist, or its secrets cannot be decrypted.
    """
    if isinstance(connection, Connection):
        return copy.copy(connection)
    # A request to a manager, for which the tasks on this event loop need not wait.
    return await anyio.to_thread.run_sync(ctx.connection, connection)


def library(module: str, extra: str) -> Any:
    """Import an optional library.

    Args:
        module: The module.
        extra: The extra of pubsubflow that installs it.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{module} is not installed here: pip install 'pubsubflow[{extra}]'"
        ) from error
