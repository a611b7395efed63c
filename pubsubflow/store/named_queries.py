"""Named queries of the files `sql/*.sql`, each under a heading `-- name: verb_things`.

What several queries of a file have in common stands under a heading `-- part: things`, and in each
of them as a line `-- include things`.
"""

import re
from collections.abc import Mapping
from functools import partial
from importlib import resources

_HEADING = re.compile(r"^-- (name|part): (\w+)\n", flags=re.MULTILINE)
_INCLUDE = re.compile(r"^-- include (\w+)$", flags=re.MULTILINE)


def load_queries() -> dict[str, str]:
    """Return all named queries: name → text.

    Raises:
        ValueError: Two queries have the same name.
        KeyError: A query includes a part that its file does not have before it.
    """
    found: dict[str, str] = {}
    folder = resources.files("pubsubflow.store") / "sql"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        parts: dict[str, str] = {}
        _, *texts = _HEADING.split(file.read_text())
        for kind, name, text in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
            if kind == "part":
                parts[name] = text.strip()
                continue
            if name in found:
                raise ValueError(f"two queries of store/sql have the name {name}")
            found[name] = _INCLUDE.sub(partial(_part, parts), text).strip()
    return found


def _part(parts: Mapping[str, str], include: re.Match[str]) -> str:
    return parts[include[1]]


SQL = load_queries()
