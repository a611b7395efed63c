"""Scripts that a view of the page needs beside the first one, by its address.

A browser finds out only when the first script runs. A header of the page names them, so they come
together with it: over a slow line that is a round trip less.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct


class EarlyFiles(Struct, frozen=True):
    """Files of some views, as `web/build.mjs` writes them.

    Attributes:
        path: Pattern of the addresses of the views, below `/ui/`.
        tab: The tab of the view; any of them if None.
        files: Names of scripts.
    """

    path: str
    files: tuple[str, ...]
    tab: str | None = None


def read_early(body: bytes) -> Sequence[EarlyFiles]:
    """Return what a build has written about its views."""
    return msgspec.json.decode(body, type=tuple[EarlyFiles, ...])


def early_links(views: Iterable[EarlyFiles], path: str, tab: str | None) -> str:
    """Return the header `Link` of the page at an address; empty if it names nothing."""
    found = {
        name
        for each in views
        if each.tab in (None, tab) and _pattern(each.path).search(path)
        for name in each.files
    }
    return ", ".join(f"</ui/{name}>; rel=modulepreload" for name in sorted(found))


@lru_cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)
