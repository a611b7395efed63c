"""Commands about what could not be done."""

import asyncio
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from pubsubflow.cli import output
from pubsubflow.cli.target import Asking
from pubsubflow.errors import ConfigError
from pubsubflow.model.api.explain import DeadLetterDetail, Resent

_DEFAULT = Asking()


async def list_letters(
    *,
    all_: Annotated[bool, Parameter(name="--all")] = False,
    limit: int = 20,
    asking: Asking = _DEFAULT,
) -> None:
    """List what could not be done, the newest first.

    Args:
        all_: Also what was sent again.
        limit: How many at most; 20 if left out.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        found = client.dead_letters(resent=all_, limit=limit)
        if asking.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("letter", "kind", "for", "created", "sent again", "why"), elastic=["for", "why"]
        )
        async for letter in found:
            listing.row(
                str(letter.id),
                letter.kind,
                letter.dag_id or letter.subject,
                output.brief(letter.created_at),
                output.brief(letter.resent_at),
                letter.reason,
            )
    listing.show(none="no dead letters")


async def show_letter(letter: int, /, *, asking: Asking = _DEFAULT) -> None:
    """Show a dead letter and what it holds.

    Args:
        letter: Number of the dead letter.
        asking: Which daemon to ask, and the form of the answer.
    """
    found = await _look(letter, asking)
    if asking.json:
        output.show_json(found)
        return
    output.show(
        output.facts(
            [
                ("dead letter", str(found.id)),
                ("kind", found.kind),
                ("for", found.dag_id or found.subject),
                ("why", found.reason),
                ("created", output.moment(found.created_at)),
                ("sent again", output.moment(found.resent_at)),
            ]
        ),
        "",
        _pretty(found.payload),
    )


async def resend_letter(letter: int, /, *, asking: Asking = _DEFAULT) -> None:
    """Send a dead letter again as it is.

    Args:
        letter: Number of the dead letter.
        asking: Which daemon to ask, and the form of the answer.
    """
    async with asking.client() as client:
        _tell(await client.resend(letter), json=asking.json)


def edit_letter(
    letter: int,
    /,
    *,
    payload: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    asking: Asking = _DEFAULT,
) -> None:
    """Change what a dead letter holds, in $EDITOR, and send it again if it has changed.

    Args:
        letter: Number of the dead letter.
        payload: A file with the new JSON, or - for stdin, in place of the editor.
        asking: Which daemon to ask, and the form of the answer.
    """
    found = asyncio.run(_look(letter, asking))
    if not found.editable:
        raise ConfigError(
            f"dead letter {letter} is a message of the bus, whose form is its own: send it "
            f"again as it is with `pubsubflow dead-letters resend {letter}`"
        )
    changed = _parse(_edited(found) if payload is None else _read(payload))
    if payload is None and changed == found.payload:
        output.show("nothing was changed, so nothing is sent")
        return
    asyncio.run(_send(found, changed, asking))


async def _look(letter: int, asking: Asking) -> DeadLetterDetail:
    async with asking.client() as client:
        return await client.dead_letter(letter)


async def _send(letter: DeadLetterDetail, payload: object, asking: Asking) -> None:
    """Send a letter again as it was edited, unless somebody else has done so meanwhile."""
    async with asking.client() as client:
        resent = await client.resend(letter.id, payload=payload, revision=letter.revision)
    _tell(resent, json=asking.json)


def _tell(resent: Resent, *, json: bool) -> None:
    if json:
        output.show_json(resent)
    elif resent.run_id is None:
        output.show(f"dead letter {resent.id} was sent again")
    else:
        output.show(f"dead letter {resent.id} was sent again: run {resent.run_id}")


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from error


def _edited(letter: DeadLetterDetail) -> bytes:
    """Let the user's editor change the payload; return what it saved."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"dead-letter-{letter.id}.json"
        file.write_text(_pretty(letter.payload) + "\n")
        try:
            done = subprocess.run([*shlex.split(editor), str(file)], check=False)
        except OSError as error:
            raise ConfigError(
                f"the editor {editor!r} does not start ({error.strerror}): set $EDITOR, or give "
                "--payload FILE"
            ) from error
        if done.returncode:
            raise ConfigError(f"the editor {editor!r} failed, so nothing is sent")
        return file.read_bytes()


def _parse(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise ConfigError(f"what was written is no JSON, so nothing is sent: {error}") from error


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
