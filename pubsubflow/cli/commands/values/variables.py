"""Variables; values of secret ones are read from a prompt, stdin, a file or the environment."""

import getpass
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.parsers import InputFile, Limit
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.cli.value_sources import read_source
from pubsubflow.errors import ConfigError, InvalidInput
from pubsubflow.model.api.variables import VariableView
from pubsubflow.model.values.variables import as_text, make_variable, parse_value
from pubsubflow.redaction import MASK, looks_secret


async def list_variables(*, limit: Limit = 100, target: Target = DEFAULT) -> None:
    """List variables by name; the values of secret ones are shown as ***.

    Args:
        limit: How many variables at most; 100 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.variables(limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("variable", "value", "source", "updated", "description"),
            elastic=["value", "description"],
            times=["updated"],
        )
        async for each in found:
            updated = output.brief(each.updated_at)
            listing.row(each.name, as_text(each.value), each.source, updated, each.description)
    listing.show(none="no variables")


async def get_variable(name: str, /, *, target: Target = DEFAULT) -> None:
    """Print the value of a variable: a text as it is, other values as JSON.

    Args:
        name: Name of the variable.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = await client.variable(name)
    output.show_result(found, as_text(found.value), json=target.json)


async def set_variable(
    name: str,
    value: str | None = None,
    /,
    *,
    source: str | None = None,
    text: bool = False,
    secret: bool | None = None,
    description: str | None = None,
    target: Target = DEFAULT,
) -> None:
    """Set a variable; its value is JSON where it is valid JSON, else a text.

    Args:
        name: Name of the variable: letters, digits, _, - and ., at most 250.
        value: The value; read from a prompt, or from stdin if that is not a terminal, when it is
            left out. A secret one cannot be given here.
        source: Read the value from env:NAME, an environment variable, or from @FILE.
        text: Take the value as a text even if it is valid JSON, such as 007 or true.
        secret: Store it encrypted and never show it; the default for names such as db_password.
        description: A note for people.
        target: The daemon, and the format of the output.
    """
    hidden = looks_secret(name) if secret is None else secret
    if value is not None and hidden:
        raise InvalidInput(
            f"{name} is a secret, and a value on the command line shows in lists of processes and "
            "in the shell's history: leave it out, or write --source env:NAME or --source @FILE; "
            "--no-secret if it is none"
        )
    if value is not None and source is not None:
        raise InvalidInput("give the value or --source, not both")
    given = _read(name, source, hidden=hidden) if value is None else value
    made = make_variable(
        name, given if text else parse_value(given), secret=secret, description=description
    )
    async with target.client() as client:
        found = await client.set_variable(name, made.value, secret=secret, description=description)
    _show(found, json=target.json)


async def delete_variable(name: str, /, *, target: Target = DEFAULT) -> None:
    """Delete a variable.

    Args:
        name: Name of the variable.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        await client.delete_variable(name)
    output.show_result({"deleted": name}, f"deleted {name}", json=target.json)


async def import_variables(file: InputFile, /, *, target: Target = DEFAULT) -> None:
    """Import variables from a JSON file, an object of names and values as `export` writes it.

    A value may also be an object with the key `value` and perhaps `description` and `secret`, as
    Airflow writes it. A secret written as *** stays as it is stored.

    Args:
        file: The file, or - for stdin.
        target: The daemon, and the format of the output.
    """
    given = _entries(file)
    made = [make_variable(name, **entry) for name, entry in given.items()]
    kept = [each.name for each in made if each.secret and each.value == MASK]
    async with target.client() as client:
        for each in made:
            if each.name not in kept:
                await client.set_variable(
                    each.name, each.value, secret=each.secret, description=each.description
                )
    count = len(made) - len(kept)
    note = f"; kept as stored: {', '.join(kept)}" if kept else ""
    done = {"set": count, "kept": kept}
    output.show_result(done, f"set {count} variable{'s' * (count != 1)}{note}", json=target.json)


async def export_variables(file: Path | None = None, /, *, target: Target = DEFAULT) -> None:
    """Export all stored variables as JSON, with *** in place of secrets.

    Args:
        file: The file; stdout if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = [each async for each in client.variables() if each.source == "store"]
    data = msgspec.json.format(msgspec.json.encode(_exported(found)), indent=2) + b"\n"
    if file is None:
        sys.stdout.write(data.decode())
        return
    _write(file, data)
    output.show_result({"exported": len(found)}, f"wrote {len(found)} to {file}", json=target.json)


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error


def _exported(found: Iterable[VariableView]) -> dict[str, Any]:
    """Return name → value, or an object where more is to be said."""
    entries: dict[str, Any] = {}
    for each in found:
        more = {"secret": each.secret} if each.secret != looks_secret(each.name) else {}
        if each.description is not None:
            more |= {"description": each.description}  # type: ignore[dict-item]
        # A value that looks like such an object is wrapped, or the import would unwrap it.
        wrapped = bool(more) or (isinstance(each.value, dict) and "value" in each.value)
        entries[each.name] = {"value": each.value, **more} if wrapped else each.value
    return entries


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    """Return name → the arguments of `make_variable`."""
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        found = msgspec.json.decode(data, type=dict[str, Any])
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file}: {error}; write an object of names and values") from error
    known = {"value", "description", "secret"}
    return {
        name: each
        if isinstance(each, dict) and "value" in each and each.keys() <= known
        else {"value": each}
        for name, each in found.items()
    }


def _read(name: str, source: str | None, *, hidden: bool) -> str:
    if source is not None:
        return read_source(source, "--source")
    if not sys.stdin.isatty():
        return sys.stdin.read().rstrip("\r\n")
    return getpass.getpass(f"{name}: ") if hidden else input(f"{name}: ")


def _show(view: VariableView, *, json: bool) -> None:
    facts: list[tuple[str, Any]] = [
        ("variable", view.name),
        ("value", as_text(view.value)),
        ("secret", "yes" if view.secret else ""),
        ("description", view.description),
        ("source", view.source),
        ("updated", output.moment(view.updated_at)),
        ("revision", view.revision),
    ]
    output.show_result(view, output.facts(facts), json=json)
