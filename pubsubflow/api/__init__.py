"""The HTTP API: it takes events in and serves everything that clients read and change.

This is the only package with an aiohttp server in it.
"""

from pubsubflow.api.service import Api
from pubsubflow.api.settings import ApiSettings

__all__ = ["Api", "ApiSettings"]
