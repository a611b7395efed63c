"""Completion of names that a daemon knows: DAGs, runs, tasks, datasets, pools and so on.

The parameters of commands have their completers by name, so a command that is added has them, too.
A shell waits for the answer: it comes within 300 ms or not at all, and an error is silent.
"""

import inspect
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, Parameter

from pubsubflow.cli.coroutines import complete
from pubsubflow.cli.run_choice import RunChoice
from pubsubflow.cli.target import Target
from pubsubflow.client import Client

Names = AsyncIterator[tuple[str, str]]
Shell = Literal["zsh", "bash", "fish", "powershell"]

_SECONDS = 0.3
_MOST = 500
_RUNS = 50
_TARGET = ("server", "token", "ca", "home", "config")
_PATHS = ("ca", "home", "config")

# bash takes the colons of a URI for the ends of words: they are put together again for the script
# above, and what stands before the last one is not written twice.
_BASH_COLONS = """
_{name}_with_colons() {{
  local -a words=()
  local word joins="" at=0 index=0
  for word in "${{COMP_WORDS[@]}}"; do
    if [[ -n "$joins" || "$word" == :* ]] && (( ${{#words[@]}} > 1 )); then
      words[${{#words[@]}}-1]+="$word"
    else
      words+=("$word")
    fi
    joins=""
    [[ "$word" == :* || "$word" == *: ]] && joins=1
    (( index == COMP_CWORD )) && at=$(( ${{#words[@]}} - 1 ))
    (( index++ ))
  done
  local -a COMP_WORDS=("${{words[@]}}")
  local COMP_CWORD=$at
  _{name}
  local whole="${{COMP_WORDS[COMP_CWORD]}}"
  COMPREPLY=("${{COMPREPLY[@]#"${{whole%"${{whole##*:}}"}}"}}")
}}
complete -F _{name}_with_colons {name}
"""


class CompletingApp(App):
    """An app whose script for bash completes words with colons."""

    def generate_completion(
        self, *, prog_name: str | None = None, shell: Shell | None = None
    ) -> str:
        """Return the completion script for a shell."""
        script: str = super().generate_completion(prog_name=prog_name, shell=shell)
        return script + _BASH_COLONS.format(name=self.name[0]) if shell == "bash" else script


def add_completers(
    commands: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]], words: Sequence[str]
) -> None:
    """Give the parameters of commands completers, before the app reads them.

    Args:
        commands: Group → (help, name → (place, help)).
        words: The line to complete: only the command that it names is imported; all if empty.
    """
    for group, (_, table) in commands.items():
        for name, (place, _) in table.items():
            if words and [*words[: 2 if group else 1]] != [*filter(None, (group, name))]:
                continue
            module, _, function = place.partition(":")
            command = getattr(import_module(f"pubsubflow.cli.commands.{module}"), function)
            if "target" in inspect.signature(command).parameters:
                _annotate(inspect.unwrap(command).__annotations__, group)
    _annotate(RunChoice.__annotations__, "")
    for field in fields(RunChoice):
        field.type = RunChoice.__annotations__[field.name]


def _annotate(annotations: dict[str, Any], group: str) -> None:
    for name, kind in annotations.items():
        read = _OF_GROUP.get((group, name)) or _OF_ANY.get(name)
        if read is not None:
            annotations[name] = Annotated[kind, Parameter(completer=_completer(read))]


def _completer(read: Callable[[Client, Any], Names]) -> Callable[[Any], list[tuple[str, str]]]:
    """Return what cyclopts calls for the candidates of a parameter."""

    def candidates(context: Any) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        # Whatever is wrong, a shell has no place for it.
        with suppress(Exception), _time_limit():
            complete(_collect(read, context, found))
        return found

    return candidates


async def _collect(
    read: Callable[[Client, Any], Names], context: Any, found: list[tuple[str, str]]
) -> None:
    async with _target(context).client(seconds=_SECONDS, retries=0) as client:
        async for each in read(client, context):
            found += [each]  # what is there when the time is over counts


def _target(context: Any) -> Target:
    """Return the daemon that the line names so far."""
    given = {name: context[name].raw for name in _TARGET if context[name].provided}
    paths = {name: Path(given[name]) for name in _PATHS if name in given}
    return Target(**{**given, **paths})


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise TimeoutError in the block when the time is over."""

    def expire(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def _dags(client: Client, _context: Any) -> Names:
    for each in (await client.dags(limit=_MOST)).items:
        yield each.dag_id, each.schedule or ""


async def _runs(client: Client, context: Any) -> Names:
    dag = context.get("dag")
    chosen = dag.raw if dag is not None and dag.provided else None
    async for each in client.runs(dag_id=chosen, limit=_RUNS):
        yield each.run_id, f"{each.dag_id} {each.state}"


async def _tasks(client: Client, context: Any) -> Names:
    async for each in client.tasks(context["run"].raw, limit=_MOST):
        yield each.id.removeprefix(f"{each.run_id}."), each.state


async def _datasets(client: Client, _context: Any) -> Names:
    async for each in client.datasets(limit=_MOST):
        yield each.dataset, each.name or ""


async def _pools(client: Client, _context: Any) -> Names:
    async for each in client.pools(limit=_MOST):
        yield each.name, f"{each.used} of {each.slots or '∞'} slots"


async def _variables(client: Client, _context: Any) -> Names:
    async for each in client.variables(limit=_MOST):
        yield each.name, each.description or ""


async def _connections(client: Client, _context: Any) -> Names:
    async for each in client.connections(limit=_MOST):
        yield each.name, each.kind


async def _connection_types(client: Client, _context: Any) -> Names:
    for each in await client.connection_types():
        yield each.name, each.help


async def _tokens(client: Client, _context: Any) -> Names:
    async for each in client.tokens(limit=_MOST):
        if each.state == "active":
            yield each.name, each.role


async def _approvals(client: Client, _context: Any) -> Names:
    async for each in client.approvals(limit=_MOST):
        yield each.id, each.title


async def _alerts(client: Client, _context: Any) -> Names:
    async for each in client.alerts(limit=_RUNS):
        yield str(each.id), each.text


async def _backfills(client: Client, _context: Any) -> Names:
    async for each in client.backfills(limit=_RUNS):
        yield each.backfill_id, f"{each.dag_id} {each.state}"


async def _subscriptions(client: Client, _context: Any) -> Names:
    async for each in client.subscriptions(limit=_MOST):
        yield each.id, each.url


async def _dead_letters(client: Client, _context: Any) -> Names:
    async for each in client.dead_letters(limit=_RUNS):
        yield str(each.id), f"{each.kind}: {each.reason}"


_OF_ANY: dict[str, Callable[[Client, Any], Names]] = {
    "dag": _dags,
    "run": _runs,
    "task": _tasks,
    "tasks": _tasks,
    "dataset": _datasets,
    "pool": _pools,
    "approval": _approvals,
    "backfill": _backfills,
    "alert": _alerts,
    "subscription": _subscriptions,
    "letter": _dead_letters,
    "letters": _dead_letters,
}
_OF_GROUP: dict[tuple[str, str], Callable[[Client, Any], Names]] = {
    ("variables", "name"): _variables,
    ("connections", "name"): _connections,
    ("connections", "type"): _connection_types,
    ("tokens", "name"): _tokens,
}
