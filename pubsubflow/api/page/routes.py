"""Routes of the web page, which are open: a browser has to load it before anybody can sign in."""

import html
from collections.abc import Iterable, Mapping

from aiohttp import web

from pubsubflow.api.http.routing import Access, MediaBody, Route, get
from pubsubflow.api.page.files import ASSETS, INDEX, PageFile, PageFiles

HOME = "/ui/"
_DIRECTIVES = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types psf",
)
POLICY = "; ".join(_DIRECTIVES)
"""What a browser allows the page: to load its own files, and to call its own server."""

_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Vary": "Accept-Encoding",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_HTML = MediaBody(("text/html",), "A file of the web page.")
_MISSING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>pubsubflow</title>
<h1>The page was not built</h1>
<p>Build it with <code>make page</code> in a checkout, or install a released wheel, which has it
inside.</p>{reason}
<p>Everything that it shows, the command line shows, too: <code>pubsubflow --help</code>.</p>
</html>
"""


class PageRoutes:
    """Handlers of `/ui/`; the description of the API leaves them out.

    Args:
        files: The files of the page.
    """

    def __init__(self, files: PageFiles | None = None) -> None:
        self._files = files or PageFiles()

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        for path, handler in (("/", self.home), ("/ui", self.home), ("/ui/{path:.*}", self.show)):
            yield get(path, handler, access=Access.OPEN, responses={200: _HTML})

    async def home(self, request: web.Request) -> web.StreamResponse:
        """Send browsers to the page; to programs there is nothing here.

        Raises:
            HTTPNotFound: The client does not accept HTML.
        """
        if "text/html" not in request.headers.get("Accept", ""):
            raise web.HTTPNotFound
        return web.Response(status=302, headers={"Location": HOME, "Cache-Control": "no-cache"})

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Send a file of the page; `index.html` for the address of a view.

        Raises:
            HTTPNotFound: No file under `assets/` has this name.
        """
        name = request.match_info["path"]
        file = self._files.get(name) if name.startswith(ASSETS) else None
        if file is None:
            # Also for an asset that is unknown: the page may just have been built anew.
            await self._files.load()
            file = self._files.get(name)
        if file is None and name.startswith(ASSETS):
            raise web.HTTPNotFound
        index = self._files.get(INDEX)
        file = file or index
        if file is None:
            return await self._missing()
        response = _answer(request, file, lasting=name.startswith(ASSETS))
        if file is index and (links := self._files.links(name, request.query.get("tab"))):
            response.headers["Link"] = links
        return response

    async def _missing(self) -> web.Response:
        reason = await self._files.reason_missing()
        tried = f"<p>It was tried: {html.escape(reason)}</p>" if reason else ""
        text = _MISSING.format(reason=tried)
        return web.Response(text=text, status=404, content_type="text/html")


def _answer(request: web.Request, file: PageFile, *, lasting: bool) -> web.Response:
    """Return a file, packed for clients that take it; 304 if the client has it already."""
    headers = {
        **_HEADERS,
        "ETag": file.etag,
        "Cache-Control": _FOR_EVER if lasting else "no-cache",
    }
    known = [each.value for each in request.if_none_match or ()]
    if file.etag.strip('"') in known or "*" in known:
        return web.Response(status=304, headers=headers)
    body = file.body
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        body = file.packed
    charset = "utf-8" if file.kind.startswith("text/") else None
    return web.Response(body=body, headers=headers, content_type=file.kind, charset=charset)
