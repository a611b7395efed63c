"""The files of the web page, kept in memory as they are sent.

They are built from `web/` when the package is built (`web/backend/page_backend.py`), so an
installed package has them inside. A checkout that was installed without Node has none.
"""

import gzip
import mimetypes
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import anyio
from msgspec import Struct

from pubsubflow.api.page.early import EarlyFiles, early_links, read_early

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
ASSETS = "assets/"
_STAMP = "digest.txt"  # as web/backend/page_backend.py writes it
_REASON = "missing.txt"
_EARLY = "early.json"
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Types that the page needs, whatever the machine's own table says."""


class PageFile(Struct, frozen=True):
    """One file.

    Attributes:
        packed: The same under gzip.
        kind: Its media type.
        etag: A digest of its content, in quotes.
    """

    body: bytes
    packed: bytes
    kind: str
    etag: str


class PageFiles:
    """The files by name; read at the first request, and again after the page was built anew.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder
        self._files: Mapping[str, PageFile] = {}
        self._early: Sequence[EarlyFiles] = ()
        self._built_at: int | None = None
        self._loading = anyio.Lock()

    async def load(self) -> None:
        """Read the files if they are not the ones in memory."""
        async with self._loading:
            await anyio.to_thread.run_sync(self._load)

    def get(self, name: str) -> PageFile | None:
        """Return a file; None if there is none of that name."""
        return self._files.get(name)

    def links(self, path: str, tab: str | None) -> str:
        """Return the header `Link` of the page at the address of a view; empty if there is none."""
        return early_links(self._early, path, tab)

    async def reason_missing(self) -> str | None:
        """Return why the page could not be built, if that was tried."""
        path = anyio.Path(self._folder / _REASON)
        try:
            first, *_ = (await path.read_text(encoding="utf-8")).splitlines() or [""]
        except OSError:
            return None
        return first.strip() or None

    def _load(self) -> None:
        try:
            built_at = (self._folder / _STAMP).stat().st_mtime_ns
        except OSError:
            self._files, self._built_at = {}, None
            return
        if built_at != self._built_at:
            self._files = {
                path.relative_to(self._folder).as_posix(): _read(path)
                for path in self._folder.rglob("*")
                if path.is_file() and path.name != _STAMP
            }
            early = self._files.get(_EARLY)
            self._early = read_early(early.body) if early else ()
            self._built_at = built_at


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    kind = _KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    digest = blake2b(body, digest_size=12).hexdigest()
    return PageFile(body, gzip.compress(body, 9, mtime=0), kind, f'"{digest}"')
