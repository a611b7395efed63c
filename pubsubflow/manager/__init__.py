"""The manager: decides what follows from events, results and commands, one transaction a batch."""

from pubsubflow.manager.service import Manager
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.manager.sweeper import Sweeper, SweeperSettings

__all__ = ["Manager", "ManagerSettings", "Sweeper", "SweeperSettings"]
