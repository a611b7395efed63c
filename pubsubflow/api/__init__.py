"""HTTP: events in, answers out. The only package that serves with aiohttp."""

from pubsubflow.api.service import Api
from pubsubflow.api.settings import ApiSettings

__all__ = ["Api", "ApiSettings"]
