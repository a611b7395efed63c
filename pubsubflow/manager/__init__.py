"""The manager: decides what follows from events, results and commands, one transaction a batch."""

from typing import TYPE_CHECKING

from pubsubflow.model.lazy_import import lazy_names

if TYPE_CHECKING:
    from pubsubflow.manager.service import Manager
    from pubsubflow.manager.settings import ManagerSettings
    from pubsubflow.manager.sweeper import Sweeper, SweeperSettings

__all__ = ["Manager", "ManagerSettings", "Sweeper", "SweeperSettings"]

__getattr__ = lazy_names(
    __name__,
    {
        "service": ("Manager",),
        "settings": ("ManagerSettings",),
        "sweeper": ("Sweeper", "SweeperSettings"),
    },
)
