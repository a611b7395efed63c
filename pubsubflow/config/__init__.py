"""Configuration of a daemon; each name is imported at its first use.

A command that only calls a daemon reads `pubsubflow.config.sources`, and must not pay for importing
the services whose settings are in `Config`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pubsubflow.config.settings import Config, LogSettings, load_config

__all__ = ["Config", "LogSettings", "load_config"]


def __getattr__(name: str) -> Any:
    """Import a name at its first use.

    Raises:
        AttributeError: The name is unknown.
    """
    if name not in __all__:
        raise AttributeError(f"module 'pubsubflow.config' has no attribute {name!r}")
    value = getattr(import_module("pubsubflow.config.settings"), name)
    globals()[name] = value
    return value
