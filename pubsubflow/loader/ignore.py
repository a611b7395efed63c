"""Ignore patterns: the lines of `.pubsubflowignore`, which mean what they mean to git."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class IgnorePattern(NamedTuple):
    """One line: what it matches, and whether it takes back what earlier lines ignore."""

    expression: re.Pattern[str]
    folders_only: bool
    negated: bool


def read_patterns(text: str, folder: str = "") -> list[IgnorePattern]:
    """Return the patterns of an ignore file, in its order; empty lines and comments have none.

    Args:
        text: The file's.
        folder: The folder of the file; the patterns are for paths that begin with it.
    """
    found = []
    base = f"{re.escape(folder)}/" if folder else ""
    for line in text.removeprefix("\ufeff").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!").removeprefix("\\")
        folders_only = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        # With a slash inside it is a path from the ignore file's folder; else a name at any depth.
        anchored = "/" in pattern
        start = "" if anchored else "(?:.*/)?"
        expression = re.compile(f"{base}{start}{_translate(pattern.lstrip('/'))}")
        found.append(IgnorePattern(expression, folders_only, negated))
    return found


def is_ignored(path: str, patterns: Sequence[IgnorePattern], *, folder: bool) -> bool:
    """Return whether the last pattern that matches a path ignores it.

    Args:
        path: With `/`, relative to the folder for which the patterns were read.
        patterns: In the order of the file.
        folder: Whether it is a folder.
    """
    for each in reversed(patterns):
        if (folder or not each.folders_only) and each.expression.fullmatch(path):
            return not each.negated
    return False


def _translate(pattern: str) -> str:
    """Return a regular expression for a pattern: `*` and `?` stay within a name, `**` does not."""
    return "".join(_pieces(pattern))


def _pieces(pattern: str) -> Iterator[str]:
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            yield "(?:.*/)?"
            position += 3
        elif rest.startswith("**"):
            yield ".*"
            position += 2
        elif rest[0] == "*":
            yield "[^/]*"
            position += 1
        elif rest[0] == "?":
            yield "[^/]"
            position += 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            yield _characters(rest[1:end])
            position += end + 1
        else:
            yield re.escape(rest[0])
            position += 1


def _characters(inner: str) -> str:
    negated = inner.startswith(("!", "^"))
    inner = inner[1:] if negated else inner
    escaped = inner.replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
    return f"[{'^' if negated else ''}{escaped}]"
