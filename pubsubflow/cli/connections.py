"""Commands about connections. Secrets come from a prompt, stdin, a file or the environment."""

import getpass
import os
import sys
from pathlib import Path
from typing import Any

from pubsubflow.cli import output
from pubsubflow.cli.parsers import pairs
from pubsubflow.cli.target import Asking
from pubsubflow.client import Client, Refused
from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.model.api.connections import ConnectionView
from pubsubflow.model.connections import make_connection
from pubsubflow.model.revisions import connection_revision

_DEFAULT = Asking()
_NOT_FOUND = 404


async def list_connections(*, limit: int = 100, asking: Asking = _DEFAULT) -> None:
    """List connections by name; secrets are shown as ***.

    Args:
        limit: How many at most; 100 if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.connections(limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("connection", "kind", "uri", "secrets", "updated"), elastic=["uri", "secrets"]
        )
        async for each in found:
            updated = output.brief(each.updated_at)
            listing.row(each.name, each.kind, each.uri, _masked(each), updated)
    listing.show(none="no connections")


async def show_connection(name: str, /, *, asking: Asking = _DEFAULT) -> None:
    """Show a connection; its secrets are shown as ***.

    Args:
        name: The connection.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        _tell(await client.connection(name), asking)


async def set_connection(
    name: str,
    /,
    *,
    uri: str | None = None,
    kind: str | None = None,
    extra: str | None = None,
    secret: tuple[str, ...] = (),
    forget: tuple[str, ...] = (),
    asking: Asking = _DEFAULT,
) -> None:
    """Make a connection, or change one; what is not named stays as it is.

    Args:
        name: Letters, digits, _ and -.
        uri: Where it is, without a password: postgres://ann@db.example.com/sales.
        kind: What it is; the scheme of the uri if left out.
        extra: A JSON object of further facts, in place of those that are there.
        secret: A secret's field, such as password: its value is asked for, or is stdin if that is
            no terminal. FIELD=env:NAME takes an environment variable, FIELD=@FILE a file. Several
            times for several.
        forget: A secret's field that is to go. Several times for several.
        asking: Which daemon to ask, and the form of the answer.
    """
    given = None if extra is None else pairs(extra, (), "extra")
    if uri is not None and make_connection(name, uri=uri).password is not None:
        raise InvalidInput(
            "a password in --uri is seen by others and kept by the shell: leave it out, and add "
            "--secret password"
        )
    secrets = _read_secrets(secret)
    async with asking.client() as client:
        before = await _found(client, name)
        kept = {} if before is None else before.secrets
        made = await client.set_connection(
            name,
            kind=kind or _kind(before, uri),
            uri=before.uri if before is not None and uri is None else uri,
            extra=before.extra if before is not None and given is None else given,
            secrets={field: kept[field] for field in kept if field not in forget} | secrets,
            revision=connection_revision(None) if before is None else before.revision,
        )
    _tell(made, asking)


async def delete_connection(name: str, /, *, asking: Asking = _DEFAULT) -> None:
    """Forget a connection.

    Args:
        name: The connection.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        await client.delete_connection(name)
    if asking.json:
        output.show_json({"deleted": name})
    else:
        output.show(f"deleted {name}")


async def rotate_keys(*, asking: Asking = _DEFAULT) -> None:
    """Encrypt the secrets of all connections with a new key, and drop the keys before.

    Args:
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        done = await client.rotate_connections()
    if asking.json:
        output.show_json(done)
    else:
        count = done.connections
        output.show(
            f"key {done.key} encrypts {count} connection{'s' * (count != 1)}; the keys before are "
            "gone: keep a copy of the key file"
        )


async def _found(client: Client, name: str) -> ConnectionView | None:
    try:
        return await client.connection(name)
    except Refused as error:
        if error.problem.status != _NOT_FOUND:
            raise
        return None


def _kind(before: ConnectionView | None, uri: str | None) -> str | None:
    """Return the kind that stays: a new uri brings its own."""
    return before.kind if before is not None and uri is None else None


def _read_secrets(asked: tuple[str, ...]) -> dict[str, str]:
    """Return field → value.

    Raises:
        InvalidInput: A value stands on the command line, or two are to come from stdin.
        ConfigError: A variable or file is not there.
    """
    fields = [each.partition("=") for each in asked]
    typed = [field for field, equals, _ in fields if not equals]
    if len(typed) > 1 and not sys.stdin.isatty():
        raise InvalidInput(
            f"stdin holds one secret, not {len(typed)}: write FIELD=env:NAME or FIELD=@FILE"
        )
    return {field: _value(field, source if equals else None) for field, equals, source in fields}


def _value(field: str, source: str | None) -> str:
    if source is None:
        if sys.stdin.isatty():
            return getpass.getpass(f"{field}: ")
        return sys.stdin.read().rstrip("\r\n")
    if source.startswith("env:"):
        name = source.removeprefix("env:")
        if name not in os.environ:
            raise ConfigError(f"--secret {field}: the environment variable {name} is not set")
        return os.environ[name]
    if source.startswith("@"):
        path = Path(source.removeprefix("@"))
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--secret {field}: {path} cannot be read") from error
    raise InvalidInput(
        f"--secret {field}=…: a value on the command line is seen by others and kept by the shell; "
        f"write --secret {field}, {field}=env:NAME or {field}=@FILE"
    )


def _tell(view: ConnectionView, asking: Asking) -> None:
    if asking.json:
        output.show_json(view)
        return
    facts: list[tuple[str, Any]] = [
        ("connection", view.name),
        ("kind", view.kind),
        ("uri", view.uri),
        ("extra", output.compact(view.extra)),
        ("secrets", _masked(view)),
        ("updated", output.moment(view.updated_at)),
        ("revision", view.revision),
    ]
    output.show(output.facts(facts))


def _masked(view: ConnectionView) -> str:
    return " ".join(f"{field}={mask}" for field, mask in view.secrets.items())
