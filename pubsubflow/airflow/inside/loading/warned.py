"""Notes of the deprecations that Airflow warns of while a file is loaded."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pubsubflow.airflow.inside.loading.notes import NoteBook

_OLD = re.compile(r"The `?([\w.]+)`? attribute is deprecated|^([\w.]+) is deprecated")
_TODAY = re.compile(r"(?:[Pp]lease use|\bUse|import it from)\s+(?:the )?[`'\"]*([\w.]+\w)")


@contextmanager
def warnings_noted(notes: NoteBook) -> Iterator[None]:
    """Make a note of each deprecation in the team's files.

    Args:
        notes: Says which files are the team's, and gets the notes.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DeprecationWarning)
        warnings.simplefilter("always", FutureWarning)
        yield
    for each in caught:
        if notes.is_own(each.filename):
            use, today = _read(" ".join(str(each.message).split()))
            notes.add(each.filename, each.lineno, use, today)


def _read(text: str) -> tuple[str, str]:
    """Return the old use and that of today, from the text of a warning."""
    old, today = _OLD.search(text), _TODAY.search(text)
    use = (old[1] or old[2]) if old else text.partition(". ")[0].rstrip(".")
    if today is None:
        return use, "see the release notes of Airflow"
    module, _, name = today[1].rpartition(".")
    return use, f"from {module} import {name}" if module else today[1]
