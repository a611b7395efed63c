"""Dead letters: messages, events and runs that could not be processed."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from pubsubflow.cli import output
from pubsubflow.cli.coroutines import complete
from pubsubflow.cli.parsers import Limit
from pubsubflow.cli.shell.parameter import Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.errors import ConfigError
from pubsubflow.model.json_values import BYTE_ORDER_MARK

if TYPE_CHECKING:
    from pubsubflow.model.api.explain import DeadLetterDetail, Resent


async def list_dead_letters(
    *,
    all_: Annotated[bool, Parameter(name="--all")] = False,
    kind: str | None = None,
    dag: str | None = None,
    reason: str | None = None,
    limit: Limit = 20,
    target: Target = DEFAULT,
) -> None:
    """List dead letters, the newest first.

    Args:
        all_: Also those that were resent or discarded.
        kind: Only those of this kind.
        dag: Only those of this DAG.
        reason: Only those with this reason, whole or as the summary shows it.
        limit: How many dead letters at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        found = client.dead_letters(resent=all_, kind=kind, dag_id=dag, reason=reason, limit=limit)
        if target.json:
            await output.show_items(found)
            return
        listing = output.Listing(
            *("letter", "kind", "for", "created", "settled", "why"),
            elastic=["for", "why"],
            times=["created"],
        )
        async for letter in found:
            listing.row(
                str(letter.id),
                letter.kind,
                letter.dag_id or letter.subject,
                output.brief(letter.created_at),
                output.brief(letter.resent_at or letter.discarded_at),
                letter.reason,
            )
    listing.show(none="no dead letters")


async def show_dead_letter(letter: int, /, *, target: Target = DEFAULT) -> None:
    """Show a dead letter and its payload.

    Args:
        letter: Number of the dead letter.
        target: The daemon, and the format of the output.
    """
    found = await _read(letter, target)
    if target.json:
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
                ("resent", output.moment(found.resent_at)),
                ("discarded", output.moment(found.discarded_at)),
            ]
        ),
        "",
        _pretty(found.payload),
    )


async def summarise_dead_letters(*, limit: Limit = 20, target: Target = DEFAULT) -> None:
    """Count the open dead letters by kind, DAG and reason, the most frequent first.

    Args:
        limit: How many lines at most; 20 if left out.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        groups = await client.dead_letter_summary(limit=limit)
    if target.json:
        output.show_list(groups)
        return
    listing = output.Listing(
        *("letters", "kind", "dag", "newest", "example", "why"),
        right=["letters", "example"],
        elastic=["dag", "why"],
        times=["newest"],
    )
    for each in groups:
        listing.row(
            str(each.count),
            each.kind,
            each.dag_id,
            output.brief(each.newest),
            str(each.example),
            each.reason,
        )
    listing.show(none="no dead letters")


async def resend_dead_letters(
    *letters: int,
    all_: Annotated[bool, Parameter(name="--all")] = False,
    kind: str | None = None,
    dag: str | None = None,
    reason: str | None = None,
    limit: Limit = 100,
    dry_run: bool = False,
    target: Target = DEFAULT,
) -> int:
    """Resend dead letters as they are, the oldest first.

    Args:
        letters: Numbers of the dead letters.
        all_: All open ones.
        kind: All open ones of this kind.
        dag: All open ones of this DAG.
        reason: All open ones with this reason, whole or as the summary shows it.
        limit: How many at most; 100 if left out.
        dry_run: Only check them, and show what would happen.
        target: The daemon, and the format of the output.
    """
    selection = _selection(letters, every=all_, kind=kind, dag=dag, reason=reason, limit=limit)
    async with target.client() as client:
        if len(letters) == 1:
            resent = await client.resend(letters[0], dry_run=dry_run)
            _show_resent(resent, json=target.json)
            return 0
        if dry_run:
            selection["dry_run"] = True
        done = await client.resend_dead_letters(selection)
    verb = "would be" if dry_run else "were"
    refused = "would be refused" if dry_run else "was not resent"
    lines = [f"dead letter {each.id} {refused}: {each.reason}" for each in done.refused]
    lines += [f"dead letter {each.id}: {each.would}" for each in done.resent if each.would]
    total = f"{len(done.resent)} dead letters {verb} resent" + _more(more=done.more)
    output.show_result(done, *lines, total, json=target.json)
    return 1 if done.refused else 0


async def discard_dead_letters(
    *letters: int,
    all_: Annotated[bool, Parameter(name="--all")] = False,
    kind: str | None = None,
    dag: str | None = None,
    reason: str | None = None,
    limit: Limit = 100,
    target: Target = DEFAULT,
) -> int:
    """Discard dead letters: they cannot be resent, and are deleted when they are old.

    Args:
        letters: Numbers of the dead letters.
        all_: All open ones.
        kind: All open ones of this kind.
        dag: All open ones of this DAG.
        reason: All open ones with this reason, whole or as the summary shows it.
        limit: How many at most; 100 if left out.
        target: The daemon, and the format of the output.
    """
    selection = _selection(letters, every=all_, kind=kind, dag=dag, reason=reason, limit=limit)
    async with target.client() as client:
        done = await client.discard_dead_letters(selection)
    missing = sorted(set(letters) - set(done.discarded))
    lines = [f"dead letter {each} is not open" for each in missing]
    total = f"{len(done.discarded)} dead letters were discarded" + _more(more=done.more)
    output.show_result(done, *lines, total, json=target.json)
    return 1 if missing else 0


def _selection(
    letters: Sequence[int], *, every: bool, limit: Limit, **given: str | None
) -> dict[str, Any]:
    """Return what a request about many dead letters selects.

    Raises:
        ConfigError: Nothing is selected.
    """
    chosen: dict[str, Any] = {name: each for name, each in given.items() if each is not None}
    if letters:
        chosen["ids"] = letters
    if every:
        chosen["all"] = True
    if not chosen:
        raise ConfigError("name dead letters by number, --kind, --dag, --reason, or --all")
    return {**chosen, "limit": max(limit, len(letters))}


def _more(*, more: bool) -> str:
    return "; there are more: raise --limit, or repeat the command" if more else ""


def edit_dead_letter(
    letter: int,
    /,
    *,
    payload: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    dry_run: bool = False,
    target: Target = DEFAULT,
) -> None:
    """Edit the payload of a dead letter in $EDITOR, and resend it if it has changed.

    Args:
        letter: Number of the dead letter.
        payload: File with the new payload in JSON, or - for stdin, in place of the editor.
        dry_run: Only check it, and show what would happen.
        target: The daemon, and the format of the output.
    """
    # Two connections, not one around the editor: that may stay open longer than any connection.
    found = complete(_read(letter, target))
    if not found.editable:
        raise ConfigError(
            f"dead letter {letter} is a binary message, which cannot be edited: resend it as it is "
            f"with `pubsubflow dead-letters resend {letter}`"
        )
    changed = _parse(_edited(found) if payload is None else _read_file(payload))
    if payload is None and changed == found.payload:
        output.show("the payload is unchanged, so nothing was sent")
        return
    complete(_send(found, changed, target, dry_run=dry_run))


async def _read(letter: int, target: Target) -> "DeadLetterDetail":
    async with target.client() as client:
        return await client.dead_letter(letter)


async def _send(
    letter: "DeadLetterDetail", payload: object, target: Target, *, dry_run: bool
) -> None:
    """Resend an edited letter; the revision makes a second resend from elsewhere fail."""
    async with target.client() as client:
        resent = await client.resend(
            letter.id, payload=payload, revision=letter.revision, dry_run=dry_run
        )
    _show_resent(resent, json=target.json)


def _show_resent(resent: "Resent", *, json: bool) -> None:
    if resent.refused is not None:
        output.show_result(
            resent, f"dead letter {resent.id} would be refused: {resent.refused}", json=json
        )
        return
    if resent.would is not None:
        params = "" if resent.params is None else f", with params {output.compact(resent.params)}"
        output.show_result(resent, f"dead letter {resent.id}: {resent.would}{params}", json=json)
        return
    run = "" if resent.run_id is None else f": run {resent.run_id}"
    output.show_result(resent, f"dead letter {resent.id} was resent{run}", json=json)


def _read_file(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from error


def _edited(letter: "DeadLetterDetail") -> bytes:
    """Open the payload in the user's editor and return the saved text."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"dead-letter-{letter.id}.json"
        file.write_text(_pretty(letter.payload) + "\n")
        try:
            # $EDITOR may contain options, such as `code --wait`.
            done = subprocess.run([*shlex.split(editor), str(file)], check=False)
        except OSError as error:
            raise ConfigError(
                f"the editor {editor!r} does not start ({error.strerror}): set $EDITOR, or give "
                "--payload FILE"
            ) from error
        if done.returncode:
            raise ConfigError(f"the editor {editor!r} failed, so nothing was sent")
        return file.read_bytes()


def _parse(data: bytes) -> object:
    try:
        return msgspec.json.decode(data.removeprefix(BYTE_ORDER_MARK))
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"the edited payload is not JSON, so nothing was sent: {error}"
        ) from error


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
