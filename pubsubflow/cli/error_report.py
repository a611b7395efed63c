"""The report of an error: one line on stderr that says what to do, and an exit code."""

import sys
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeGuard

from pubsubflow.errors import (
    ConfigError,
    DefinitionError,
    InvalidInput,
    NotFound,
    PubsubflowError,
    Unavailable,
)
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.terminal_text import terminal_safe_line

if TYPE_CHECKING:
    from cyclopts import CycloptsError

cyclopts = lazy_module("cyclopts")

FAILED, USAGE, AWAY = 1, 2, 3
_NAMES_SHOWN = 8


def exit_code(error: Exception) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, Unavailable):
        return AWAY
    usage = ConfigError | DefinitionError | InvalidInput | NotFound
    return USAGE if isinstance(error, usage) or _is_of_parser(error) else FAILED


def report(error: Exception) -> int:
    """Print an error in one line and return the exit code."""
    causes = list(_leaves(error))
    # A group also holds errors that followed from another one. Ours says what to do.
    known = (each for each in causes if isinstance(each, PubsubflowError) or _is_of_parser(each))
    cause = next(known, None)
    if cause is None:
        text = f"{_one_line(causes[0]) or 'no details'} ({type(causes[0]).__name__})"
        sys.stderr.write(f"pubsubflow: internal error: {text}; --debug shows its traceback\n")
        return FAILED
    sys.stderr.write(f"pubsubflow: {_described(cause)}\n")
    return exit_code(cause)


def _is_of_parser(error: Exception) -> "TypeGuard[CycloptsError]":
    # Nothing that is not imported has raised an error.
    return "cyclopts" in sys.modules and isinstance(error, cyclopts.CycloptsError)


def _described(error: Exception) -> str:
    """Return an error in one line; one of the command line's parser says where the help is."""
    if not _is_of_parser(error):
        return _one_line(error)
    chain = " ".join(["pubsubflow", *(error.command_chain or ())])
    if isinstance(error, cyclopts.UnknownCommandError) and error.unused_tokens:
        text = _describe_unknown(error.unused_tokens[0], error)
    elif isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        text = terminal_safe_line(f"unexpected argument {error.unused_tokens[0]!r}.")
    else:
        text = _one_line(error)
    return f"{text} See `{chain} --help`."


def _describe_unknown(word: str, error: "CycloptsError") -> str:
    """Return which command is unknown, and what was meant; its own text imports all commands."""
    names = [name for name in error.app or () if not name.startswith("-")]
    meant = "".join(f' Did you mean "{name}"?' for name in get_close_matches(word, names, n=1))
    more = ", ..." if len(names) > _NAMES_SHOWN else "."
    known = f" Available commands: {', '.join(names[:_NAMES_SHOWN])}{more}" if names else ""
    return terminal_safe_line(f'Unknown command "{word}".{meant}{known}')


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield the errors inside exception groups, or the error itself."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _one_line(error: Exception) -> str:
    return terminal_safe_line(" ".join(str(error).split()))
