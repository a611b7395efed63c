"""Files of connections: exported as JSON, and imported from that, from Airflow's, or from lines."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.parsers import InputFile
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.model.connections import MASK, Connection, read_connection


async def export_connections(
    file: Path | None = None, /, *, with_secrets: bool = False, target: Target = DEFAULT
) -> None:
    """Export all stored connections as JSON, with *** in place of secrets.

    Args:
        file: The file; stdout if left out.
        with_secrets: Export the secrets, too. Only an admin may, and the audit log says who did. A
            file is then readable by you alone.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await (_secret(client) if with_secrets else _masked(client))
    if file is None:
        output.show_json(found)
        return
    data = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    _write(file, data, private=with_secrets)
    output.show_result({"exported": len(found)}, f"wrote {len(found)} to {file}", json=target.json)


async def import_connections(file: InputFile, /, *, target: Target = DEFAULT) -> None:
    """Import connections from a JSON file, an object of names as `export` writes it.

    A connection may also be written as Airflow exports it, or as a URI; the file may also hold
    lines NAME=URI. A secret written as *** stays as it is stored.

    Args:
        file: The file, or - for stdin.
        target: The daemon, and the format of the output.
    """
    given = _entries(file)
    made = [(read_connection(name, text), _limits_dags(text)) for name, text in given.items()]
    missing: list[str] = []
    async with target.client() as client:
        stored = {each.name: each.secrets async for each in client.connections()}
        for each, limited in made:
            known = stored.get(each.name, {})
            unknown = [name for name in each.secrets if _masks(each, name) and name not in known]
            missing += [f"{each.name}.{name}" for name in unknown]
            await client.set_connection(
                each.name,
                kind=each.kind,
                uri=each.uri,
                extra=each.extra,
                secrets={name: each.secrets[name] for name in each.secrets if name not in unknown},
                dags=each.dags if limited else None,
            )
    done = {"set": [each.name for each, _ in made], "missing": missing}
    text = f"set {len(made)} connection{'s' * (len(made) != 1)}"
    if missing:
        text += (
            f"; without {', '.join(missing)}, which the file masks: add each by "
            "`pubsubflow connections set NAME --secret FIELD`"
        )
    output.show_result(done, text, json=target.json)


async def _masked(client: Client) -> dict[str, Any]:
    return {
        each.name: _entry(each.kind, each.uri, each.extra, each.secrets, each.dags)
        async for each in client.connections()
        if each.source == "store"
    }


async def _secret(client: Client) -> dict[str, Any]:
    return {
        each.name: _entry(each.kind, each.uri, each.extra, each.secrets, each.dags)
        for each in await client.export_connections()
    }


def _entry(
    kind: str,
    uri: str | None,
    extra: Mapping[str, Any],
    secrets: Mapping[str, str],
    dags: list[str],
) -> dict[str, Any]:
    """Return a connection as `read_connection` reads it."""
    return {"kind": kind, "uri": uri, "extra": extra, "secrets": secrets, "dags": dags}


def _write(file: Path, data: bytes, *, private: bool) -> None:
    try:
        if not private:
            file.write_bytes(data)
            return
        # Before a secret is in it; a file that was there keeps its mode otherwise.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(descriptor, 0o600)
            opened.write(data)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error


def _entries(file: Path) -> dict[str, str]:
    """Return name → a connection as text: a URI, or a JSON object.

    Raises:
        ConfigError: The file cannot be read.
        InvalidInput: It is neither a JSON object nor lines.
    """
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not a text: write a JSON object of connections") from None
    if not text.lstrip().startswith("{"):
        return dict(_line(file, line) for line in text.splitlines() if _holds_something(line))
    try:
        found = msgspec.json.decode(text, type=dict[str, str | dict[str, Any]])
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file}: {error}; write an object of names and connections") from error
    return {
        name: each if isinstance(each, str) else msgspec.json.encode(each).decode()
        for name, each in found.items()
    }


def _holds_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _line(file: Path, line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    if not equals:
        raise InvalidInput(f"{file}: write a JSON object of connections, or lines NAME=URI")
    return name.strip(), value.strip()


def _limits_dags(text: str) -> bool:
    """Whether a connection as text says which DAGs may use it; if not, that stays as stored."""
    if text.lstrip().startswith("{"):
        return "dags" in msgspec.json.decode(text)
    return "dags=" in text.partition("?")[2]


def _masks(connection: Connection, field: str) -> bool:
    return connection.secrets[field] == MASK
