"""AWS hook: clients of Amazon's services, with a connection's key and role."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pubsubflow.hooks.connection import library
from pubsubflow.model.connections import Connection

_SESSION_NAME = "pubsubflow"


@asynccontextmanager
async def aws_client(connection: Connection | None, service: str) -> AsyncIterator[Any]:
    """Open a client of one of AWS's services (aiobotocore).

    Args:
        connection: Of type `aws`; None for what the machine itself has.
        service: Such as `s3`.

    Raises:
        ConfigError: The library is not installed.
    """
    session = library("aiobotocore.session", "aws").get_session()
    options = _options(connection)
    role = None if connection is None else connection.extra.get("role_arn")
    if role:
        async with session.create_client("sts", **options) as sts:
            answer = await sts.assume_role(RoleArn=role, RoleSessionName=_SESSION_NAME)
        found = answer["Credentials"]
        options |= {
            "aws_access_key_id": found["AccessKeyId"],
            "aws_secret_access_key": found["SecretAccessKey"],
            "aws_session_token": found["SessionToken"],
        }
    async with session.create_client(service, **options) as client:
        yield client


def _options(connection: Connection | None) -> dict[str, Any]:
    if connection is None:
        return {}
    extra, secrets = connection.extra, connection.secrets
    found = {
        "region_name": extra.get("region"),
        "endpoint_url": extra.get("endpoint_url"),
        "aws_access_key_id": extra.get("access_key_id"),
        "aws_secret_access_key": secrets.get("secret_access_key"),
        "aws_session_token": secrets.get("session_token"),
    }
    return {name: value for name, value in found.items() if value is not None}


async def check(connection: Connection) -> str:
    """Return whose credentials they are, as AWS says it."""
    async with aws_client(connection, "sts") as sts:
        return str((await sts.get_caller_identity())["Arn"])
