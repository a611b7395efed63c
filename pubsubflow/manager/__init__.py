"""The manager: folds what happened into what happens next."""

from pubsubflow.manager.service import Manager
from pubsubflow.manager.settings import ManagerSettings
from pubsubflow.manager.sweeper import Sweeper, SweeperSettings

__all__ = ["Manager", "ManagerSettings", "Sweeper", "SweeperSettings"]
