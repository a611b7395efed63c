"""Secrets that a trigger's fields name instead of holding."""

import os
from typing import Any

from pubsubflow.errors import InvalidInput, TriggerError
from pubsubflow.model.connections import read_reference
from pubsubflow.model.triggers import TriggerContext

_PREFIX = "env:"


async def resolve(ctx: TriggerContext, value: str) -> str:
    """Return a secret: the value itself, or that of `env:NAME` or `connection:NAME.field`.

    The environment is the triggerer's, and connections are read now, so a trigger's stored fields
    hold the name alone. Without a field, it is the connection's only secret.

    Raises:
        TriggerError: The variable is not set for the triggerer, or the connection is unknown.
    """
    return await _resolve(ctx, value, url=False)


async def resolve_url(ctx: TriggerContext, value: str) -> str:
    """Return a URL as `resolve` does; `connection:NAME` is the connection's, with its password.

    Raises:
        TriggerError: As `resolve`.
    """
    return await _resolve(ctx, value, url=True)


async def resolve_all(ctx: TriggerContext, value: Any) -> Any:
    """Return options with the secrets that they name.

    Raises:
        TriggerError: As `resolve`.
    """
    if isinstance(value, str):
        return await resolve(ctx, value)
    if isinstance(value, dict):
        return {key: await resolve_all(ctx, each) for key, each in value.items()}
    return value


async def _resolve(ctx: TriggerContext, value: str, *, url: bool) -> str:
    if value.startswith(_PREFIX):
        return _variable(value.removeprefix(_PREFIX))
    try:
        reference = read_reference(value)
        if reference is None:
            return value
        connection = await ctx.connection(reference.name)
        return reference.url(connection) if url else reference.secret(connection)
    except InvalidInput as error:
        raise TriggerError(str(error)) from error


def _variable(name: str) -> str:
    found = os.environ.get(name)
    if found is None:
        raise TriggerError(
            f"environment variable {name!r} is not set for the triggerer: set it and restart the "
            "daemon"
        )
    return found
