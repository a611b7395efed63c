"""HTTP servers that a test runs in its own event loop."""

from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def served(*routes, socket=None):
    """Serve routes on a free port, or on a Unix socket; gives the URL."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.UnixSite(runner, socket) if socket else web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        if socket:
            yield f"unix://{socket}"
        else:
            yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()
