"""The HTTP API: it takes events in and serves everything that clients read and change.

This is the only package with an aiohttp server in it.
"""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.api.service import Api
    from pubsubflow.api.settings import ApiSettings

__all__ = ["Api", "ApiSettings"]

__getattr__ = lazy_names(__name__, {"service": ("Api",), "settings": ("ApiSettings",)})
