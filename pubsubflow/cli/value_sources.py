"""Sources of values that are not to stand on the command line: the environment, and files."""

import os
from pathlib import Path

from pubsubflow.errors import ConfigError, InvalidInput


def read_source(source: str, option: str) -> str:
    """Return the value that `env:NAME` or `@FILE` names.

    Args:
        source: What was written.
        option: Where it was written, for errors.

    Raises:
        ConfigError: The variable or the file does not exist.
        InvalidInput: It is neither.
    """
    if source.startswith("env:"):
        name = source.removeprefix("env:")
        if name not in os.environ:
            raise ConfigError(f"{option}: the environment variable {name} is not set")
        return os.environ[name]
    if source.startswith("@"):
        path = Path(source.removeprefix("@"))
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{option}: {path} cannot be read") from error
    raise InvalidInput(f"{option}: write env:NAME or @FILE")
