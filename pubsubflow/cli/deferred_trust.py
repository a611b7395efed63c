"""aiohttp is imported without reading the certificates that this machine trusts.

aiohttp makes its default SSL context while it is imported, which parses all certificates of the
machine: about a third of the time of a command that calls a daemon without TLS. Here the context
reads them when it makes its first connection.
"""

import ssl
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


class DeferredTrust(ssl.SSLContext):
    """A context that becomes a usual one when it makes its first connection."""

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Make a connection over memory buffers, as event loops do."""
        return self._usual().wrap_bio(*arguments, **named)

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """Make a connection over a socket."""
        return self._usual().wrap_socket(*arguments, **named)

    def _usual(self) -> ssl.SSLContext:
        self.load_default_certs()
        self.__class__ = ssl.SSLContext  # type: ignore[assignment] # of the same layout
        return self


def import_aiohttp(load: Callable[[str], object] = import_module) -> None:
    """Import aiohttp, unless it is; its default context is deferred.

    Args:
        load: Imports a module.
    """
    if "aiohttp" in sys.modules:
        return
    made: list[ssl.SSLContext] = []
    usual = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = lambda self, *_: made.append(self)  # type: ignore[method-assign]
    try:
        load("aiohttp")
    finally:
        ssl.SSLContext.load_default_certs = usual  # type: ignore[method-assign]
        for context in made:
            context.__class__ = DeferredTrust


import_aiohttp()
