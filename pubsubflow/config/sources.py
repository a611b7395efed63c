"""Settings before they are typed: `pubsubflow.toml`, overlaid by the environment, then by flags.

Light to import, so that a command that only asks a daemon starts fast.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pubsubflow.errors import ConfigError

FILE = "pubsubflow.toml"
PREFIX = "PUBSUBFLOW__"
HOME = "PUBSUBFLOW_HOME"
DEFAULT_HOME = Path("~/.pubsubflow")

Tree = dict[str, Any]


def read_layers(
    *, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Tree:
    """Return all settings that are given, as nested mappings.

    Args:
        file: The configuration file; None for `pubsubflow.toml` in the current folder, if any.
        environ: Environment variables.
        flags: Values by dotted name, for example `api.port`; None stands for not given.

    Raises:
        ConfigError: The file cannot be read, or names collide with sections.
    """
    tree = _read_file(file)
    if environ.get(HOME):
        tree["home"] = environ[HOME]
    for name, value in environ.items():
        if name.startswith(PREFIX):
            _put(tree, name.removeprefix(PREFIX).lower().split("__"), value, name)
    for name, given in flags.items():
        if given is not None:
            _put(tree, name.split("."), given, f"--{name}")
    return tree


def home_of(tree: Tree) -> Path:
    """Return the home folder that settings name, or the default one."""
    return Path(tree.get("home", DEFAULT_HOME)).expanduser().absolute()


def _read_file(file: Path | None) -> Tree:
    path = Path(FILE) if file is None else file
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if file is None:
            return {}
        raise ConfigError(f"there is no configuration file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


def _put(tree: Tree, path: list[str], value: object, name: str) -> None:
    for section in path[:-1]:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{name} does not name a setting: {section} is no section")
    tree[path[-1]] = value
