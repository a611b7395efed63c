"""Connections; their secrets are read from a prompt, stdin, a file or the environment."""

import getpass
import sys
from typing import Any

from pubsubflow.cli import output
from pubsubflow.cli.parsers import Limit, pairs
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.value_sources import read_source
from pubsubflow.client import Client, RequestRefused
from pubsubflow.errors import InvalidInput
from pubsubflow.model.api.connection_types import ConnectionType
from pubsubflow.model.api.connections import ConnectionView
from pubsubflow.model.connection_dags import normalise_dags
from pubsubflow.model.connections import make_connection
from pubsubflow.model.revisions import connection_revision

_NOT_FOUND = 404
_FAILED = 1


async def list_connections(*, limit: Limit = 100, target: Target = DEFAULT) -> None:
    """List connections by name; secrets are shown as ***.

    Args:
        limit: How many connections at most; 100 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.connections(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("connection", "kind", "uri", "secrets", "dags", "source", "updated"),
            elastic=["uri", "secrets", "dags"],
            times=["updated"],
        )
        async for each in found:
            updated = output.brief(each.updated_at)
            dags = " ".join(each.dags)
            listing.row(each.name, each.kind, each.uri, _masked(each), dags, each.source, updated)
    listing.show(none="no connections")


async def show_connection(name: str, /, *, target: Target = DEFAULT) -> None:
    """Show a connection; its secrets are shown as ***.

    Args:
        name: Name of the connection.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        _show(await client.connection(name), json=target.json)


async def set_connection(
    name: str,
    /,
    *,
    uri: str | None = None,
    kind: str | None = None,
    type: str | None = None,
    extra: str | None = None,
    secret: tuple[str, ...] = (),
    forget: tuple[str, ...] = (),
    dags: tuple[str, ...] = (),
    target: Target = DEFAULT,
) -> None:
    """Create or change a connection; what is not given stays as it is.

    Args:
        name: Name of the connection: letters, digits, _ and -.
        uri: Address, without a password: postgres://ann@db.example.com/sales.
        kind: Kind of the connection; the scheme of the uri if left out.
        type: Type of the connection, such as http: its fields are checked; see `connections types`.
        extra: A JSON object of further values, in place of the stored one.
        secret: Field of a secret, such as password. Its value is read from a prompt, or from stdin
            if that is not a terminal. FIELD=env:NAME reads an environment variable, FIELD=@FILE a
            file. May be repeated.
        forget: Field of a secret to delete. May be repeated.
        dags: Id of a DAG that may use it, or a pattern such as 'etl_*', in place of those that are
            stored; '*' for all DAGs. May be repeated.
        target: The daemon, and the format of the output.
    """
    given = None if extra is None else pairs(extra, (), "extra")
    if uri is not None and make_connection(name, uri=uri).password is not None:
        raise InvalidInput(
            "a password in --uri shows in lists of processes and in the shell's history: leave it "
            "out and add --secret password"
        )
    secrets = _read_secrets(secret)
    async with target.client() as client:
        # The revision makes the server refuse this if the connection has changed since the read.
        before = await _find(client, name)
        kept = {} if before is None else before.secrets
        made = await client.set_connection(
            name,
            kind=None if type else kind or _kind(before, uri),
            uri=before.uri if before is not None and uri is None else uri,
            extra=before.extra if before is not None and given is None else given,
            secrets={field: kept[field] for field in kept if field not in forget} | secrets,
            revision=connection_revision(None) if before is None else before.revision,
            type=type,
            dags=normalise_dags(name, dags) if dags else None,
        )
    _show(made, json=target.json)


async def delete_connection(name: str, /, *, target: Target = DEFAULT) -> None:
    """Delete a connection.

    Args:
        name: Name of the connection.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        await client.delete_connection(name)
    output.show_result({"deleted": name}, f"deleted {name}", json=target.json)


async def try_connection(
    name: str, /, *, seconds: float | None = None, target: Target = DEFAULT
) -> int:
    """Check that a connection works, from the daemon, by the check of its type.

    Args:
        name: Name of the connection.
        seconds: How long it may take; 10 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        done = await client.test_connection(name, seconds=seconds)
    result = "works" if done.ok else "does not work"
    text = f"{name} ({done.type}) {result}: {done.outcome} ({done.seconds:.2f} s)"
    output.show_result(done, text, json=target.json)
    return 0 if done.ok else _FAILED


async def list_types(name: str | None = None, /, *, target: Target = DEFAULT) -> None:
    """List the types of connections, or the fields of one.

    Args:
        name: Only this type, with what its fields are for.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.connection_types()
    chosen = [each for each in found if name in (None, each.name)]
    if not chosen:
        raise InvalidInput(f"no type {name!r}: types are {', '.join(each.name for each in found)}")
    if target.json:
        output.show_list(chosen)
    elif name is None:
        listing = output.Listing("type", "fields", "about", elastic=["fields", "about"])
        for each in found:
            listing.row(each.name, " ".join(field.name for field in each.fields), each.help)
        listing.show(none="no types")
    else:
        _show_fields(chosen[0])


def _show_fields(declared: ConnectionType) -> None:
    listing = output.Listing("field", "kind", "required", "default", "about", elastic=["about"])
    for field in declared.fields:
        kind = "secret" if field.secret else field.kind
        default = "" if field.default is None else output.compact(field.default) or "-"
        listing.row(field.name, kind, "yes" if field.required else "", default, field.help)
    listing.show(none=f"type {declared.name} may have any uri, secrets and extra")


async def rotate_keys(*, target: Target = DEFAULT) -> None:
    """Encrypt the secrets of all connections with a new key, and delete the old keys.

    Args:
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        done = await client.rotate_connections()
    count = done.connections
    output.show_result(
        done,
        f"key {done.key} encrypts {count} connection{'s' * (count != 1)}; the old keys "
        "are deleted: keep a copy of the key file",
        json=target.json,
    )


async def _find(client: Client, name: str) -> ConnectionView | None:
    try:
        return await client.connection(name)
    except RequestRefused as error:
        if error.problem.status != _NOT_FOUND:
            raise
        return None


def _kind(before: ConnectionView | None, uri: str | None) -> str | None:
    """Return the kind to keep; a new uri implies its own."""
    return before.kind if before is not None and uri is None else None


def _read_secrets(options: tuple[str, ...]) -> dict[str, str]:
    """Return field → value.

    Raises:
        InvalidInput: A value is on the command line, or stdin would have to hold two.
        ConfigError: A variable or a file does not exist.
    """
    fields = [each.partition("=") for each in options]
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
    if source.startswith(("env:", "@")):
        return read_source(source, f"--secret {field}")
    raise InvalidInput(
        f"--secret {field}=…: a value on the command line shows in lists of processes and in the "
        f"shell's history; write --secret {field}, {field}=env:NAME or {field}=@FILE"
    )


def _show(view: ConnectionView, *, json: bool) -> None:
    facts: list[tuple[str, Any]] = [
        ("connection", view.name),
        ("kind", view.kind),
        ("uri", view.uri),
        ("extra", output.compact(view.extra)),
        ("secrets", _masked(view)),
        ("dags", " ".join(view.dags) or "all"),
        ("source", view.source),
        ("updated", output.moment(view.updated_at)),
        ("revision", view.revision),
    ]
    output.show_result(view, output.facts(facts), json=json)


def _masked(view: ConnectionView) -> str:
    return " ".join(f"{field}={mask}" for field, mask in view.secrets.items())
