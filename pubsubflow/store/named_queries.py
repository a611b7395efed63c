"""Named SQL: each `sql/*.sql` file holds queries under `-- name: verb_things` headings."""

import re
from importlib import resources

_HEADING = re.compile(r"^-- name: (\w+)\n", flags=re.MULTILINE)


def load_queries() -> dict[str, str]:
    """Return every named query of the package, name → text.

    Raises:
        ValueError: Two queries have one name.
    """
    found: dict[str, str] = {}
    folder = resources.files("pubsubflow.store") / "sql"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        parts = _HEADING.split(file.read_text())[1:]
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"two queries are named {name}")
            found[name] = text.strip()
    return found


SQL = load_queries()
