"""Named queries of the files `sql/*.sql`, each under a heading `-- name: verb_things`."""

import re
from importlib import resources

_HEADING = re.compile(r"^-- name: (\w+)\n", flags=re.MULTILINE)


def load_queries() -> dict[str, str]:
    """Return all named queries: name → text.

    Raises:
        ValueError: Two queries have the same name.
    """
    found: dict[str, str] = {}
    folder = resources.files("pubsubflow.store") / "sql"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        parts = _HEADING.split(file.read_text())[1:]
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"two queries of store/sql have the name {name}")
            found[name] = text.strip()
    return found


SQL = load_queries()
