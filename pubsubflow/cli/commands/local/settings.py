"""Settings of the commands that import DAG files here, without a daemon."""

import os
from pathlib import Path

from pubsubflow.config import Config, load_config
from pubsubflow.errors import ConfigError
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.logging_setup import set_up_logging


def local_config(config: Path | None) -> Config:
    """Return all settings, with a log that shows warnings alone.

    Raises:
        ConfigError: The configuration is malformed.
    """
    settings = load_config(
        file=config, environ=os.environ, flags={}, defaults={"log": {"level": "warning"}}
    )
    set_up_logging(settings.log)
    return settings


def loader_settings(config: Path | None) -> LoaderSettings:
    """Return the settings of the loader; see `local_config`.

    Raises:
        ConfigError: The configuration is malformed.
    """
    return local_config(config).loader


def check_no_airflow(settings: Config) -> None:
    """Check that no bundle of the configuration is of another kind, which has no manifest.

    Raises:
        ConfigError: One does.
    """
    for name in settings.bundles:
        raise ConfigError(
            f"configuration: bundles.{name} has files of Airflow, which an interpreter of its own "
            "keeps imported: a manifest cannot stand for them; start without --manifest, or move "
            "the folder to a daemon of its own"
        )
