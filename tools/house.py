"""House rules of language: counts words of dialect, unclear docstrings, class names used twice.

    python tools/house.py              # a line a rule, with its count
    python tools/house.py -v [PATH …]  # every finding, below these paths only

A finding is a fault; `tests/unit/test_house.py` runs the same rules, which docs/glossary.md states.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pubsubflow", "triggers/src")

# Words that no docstring, help text, error, log event or page uses.
DIALECT = re.compile(
    r"(?<![`'/])\b(?!nobody$)(nobody|somebody|whoever|told|tell|tells|telling|news)\b"
    r"|\b(ask|asks|asked|asking)\b"
    r"|\b(let|lets)\b(?! alone)"
    r"|\b(is|are|was|were) no (?!longer\b|more\b|matter\b)"
    r"|\bsee there\b",
    re.IGNORECASE,
)

# First words of a module docstring that hangs as a question, or that begins in the middle.
QUESTION = re.compile(
    r"^(what|who|whom|whose|where|when|whether|which|how|why|since when|under which|from)\b",
    re.IGNORECASE,
)

# Parts of names that were private words; each has a standard term in docs/glossary.md.
OLD_WORDS = frozenset(
    {
        "asker",
        "asked",
        "asking",
        "bell",
        "bells",
        "carrying",
        "cell",
        "cells",
        "condemn",
        "deed",
        "diary",
        "door",
        "doors",
        "fate",
        "fates",
        "folded",
        "folding",
        "gate",
        "gates",
        "happening",
        "holdings",
        "ledger",
        "lettered",
        "looker",
        "looking",
        "news",
        "nobody",
        "origins",
        "relent",
        "shelf",
        "somebody",
        "strike",
        "telling",
        "tell",
        "tells",
        "told",
        "trail",
        "unwaited",
        "vigil",
        "whoever",
        "awaiting",
        "resending",
        "addressing",
    }
)
OLD_NAMES = frozenset(
    {
        "Alarm",
        "Alarms",
        "Answers",
        "Asker",
        "Backlog_",
        "Bell",
        "Bells",
        "Cell",
        "CellWork",
        "Deed",
        "Diary",
        "Door",
        "Doors",
        "Factor",
        "Fate",
        "Feed",
        "Fold",
        "Folded",
        "Gate",
        "Gates",
        "GateWork",
        "Given",
        "Gone",
        "Happening",
        "Held",
        "Holdings",
        "Item",
        "Keys",
        "Lane",
        "Ledger",
        "Letter",
        "Line",
        "Links",
        "Looking",
        "Numbers",
        "Origin",
        "Origins",
        "Pace",
        "Nap",
        "Piece",
        "Place",
        "Pong",
        "Puller",
        "Requests_",
        "Room",
        "Said",
        "Shelf",
        "Start",
        "Steps",
        "Ticket",
        "Told",
        "Verdict",
        "Vigil",
        "Waiting_",
        "Wanted",
        "Horizon",
    }
)
# Names that the layers share on purpose: one noun, a row, a value, a JSON type or a client's part.
# The public contract names what receives (pubsubflow.webhooks) and what sends (notify) alike.
MIRRORS: frozenset[str] = frozenset({"Slack", "Webhook"})


class Finding(NamedTuple):
    """A place that breaks a rule."""

    rule: str
    path: str
    line: int
    text: str


def python_files() -> list[Path]:
    """Return the product's modules."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def findings() -> Iterator[Finding]:
    """Yield every finding in the product, its SQL and its pages."""
    classes: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for path in python_files():
        name = str(path.relative_to(ROOT))
        source = path.read_text()
        tree = ast.parse(source)
        yield from _docstring_of_module(tree, name)
        yield from _texts(tree, name)
        yield from _names(source, name)
        if name.startswith("pubsubflow/"):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    classes[node.name].append((name, node.lineno))
    for each, where in sorted(classes.items()):
        if len(where) > 1 and each not in MIRRORS:
            for name, line in where:
                yield Finding("class name used twice", name, line, each)
    for path in sorted((ROOT / "pubsubflow/store").rglob("*.sql")):
        yield from _sql(path)
    for path in _pages():
        yield from _page(path)


def _pages() -> list[Path]:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "AGENTS.md")]
    pages += sorted((ROOT / "docs").rglob("*.md"))
    return [page for page in pages if page.exists() and page.name != "glossary.md"]


def _docstring_of_module(tree: ast.Module, name: str) -> Iterator[Finding]:
    text = ast.get_docstring(tree)
    if text is None:
        yield Finding("module without docstring", name, 1, "")
    elif QUESTION.match(text) or text.split("\n")[0].rstrip().endswith(("?", ":")):
        yield Finding("question for a docstring", name, 1, text.split("\n")[0])


def _texts(tree: ast.Module, name: str) -> Iterator[Finding]:
    """Docstrings, and every string of words in code: errors, help texts, log events."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for found in DIALECT.finditer(node.value):
                line = node.lineno + node.value[: found.start()].count("\n")
                yield Finding("dialect", name, line, _around(node.value, found))


def _around(text: str, found: re.Match[str]) -> str:
    return " ".join(text[max(0, found.start() - 40) : found.end() + 40].split())


def words_of(identifier: str) -> list[str]:
    """Split a name in snake or camel case into its words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier)
    return [word for word in spaced.lower().split("_") if word]


def _names(source: str, name: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.NAME or token.string in seen:
            continue
        seen.add(token.string)
        if token.string in OLD_NAMES or OLD_WORDS.intersection(words_of(token.string)):
            yield Finding("old word in a name", name, token.start[0], token.string)


def _sql(path: Path) -> Iterator[Finding]:
    name = str(path.relative_to(ROOT))
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code, _, comment = line.partition("--")
        for word in re.findall(r"[a-z_]+", code):
            if OLD_WORDS.intersection(word.split("_")):
                yield Finding("old word in a name", name, number, word)
        for found in DIALECT.finditer(comment):
            yield Finding("dialect", name, number, _around(comment, found))


def _page(path: Path) -> Iterator[Finding]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for found in DIALECT.finditer(line):
            name = str(path.relative_to(ROOT))
            yield Finding("dialect", name, number, _around(line, found))


def comment_share() -> float:
    """Return the share of lines of `pubsubflow/` that are comments of their own."""
    lines = comments = 0
    for path in (ROOT / "pubsubflow").rglob("*.py"):
        for line in path.read_text().splitlines():
            lines += 1
            comments += line.lstrip().startswith("#")
    return comments / lines


def largest_folder() -> tuple[int, str]:
    """Return how many modules the fullest folder of `pubsubflow/` holds, and which it is."""
    counts: dict[str, int] = defaultdict(int)
    for path in (ROOT / "pubsubflow").rglob("*.py"):
        if path.name != "__init__.py":
            counts[str(path.parent.relative_to(ROOT))] += 1
    return max((count, name) for name, count in counts.items())


def main() -> int:
    """Print the counts, or every finding."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="every finding")
    parser.add_argument("paths", nargs="*", help="findings below these paths only")
    options = parser.parse_args()
    counts: dict[str, int] = defaultdict(int)
    for finding in findings():
        if options.paths and not finding.path.startswith(tuple(options.paths)):
            continue
        counts[finding.rule] += 1
        if options.verbose:
            print(f"{finding.path}:{finding.line}: {finding.rule}: {finding.text}")
    for rule, count in sorted(counts.items()):
        print(f"{rule}: {count}")
    print(f"comment lines: {comment_share():.2%}")
    print("fullest folder: {} modules in {}".format(*largest_folder()))
    return bool(counts)


if __name__ == "__main__":
    sys.exit(main())
