"""Configuration sources: `pubsubflow.toml`, overlaid by the environment, overlaid by flags.

Light to import, so that commands that only call a daemon start fast.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pubsubflow.errors import ConfigError
from pubsubflow.model.lazy_import import lazy_module

tomllib = lazy_module("tomllib")

CONFIG_FILE = "pubsubflow.toml"
ENV_PREFIX = "PUBSUBFLOW__"
HOME_ENV = "PUBSUBFLOW_HOME"
DEFAULT_HOME = Path("~/.pubsubflow")

Tree = dict[str, Any]

# Sections whose keys are names of users, which may have capitals and `__` in them.
_USERS_KEYS: dict[tuple[str, ...], Callable[[str], str]] = {
    ("bundles", "*", "env"): str,
    # A variable in capitals alone, as is usual, means the group in small letters.
    ("oidc", "roles"): lambda name: name.lower() if name.isupper() else name,
}


def read_sources(
    *, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Tree:
    """Return the settings of all sources, as nested mappings.

    Args:
        file: The configuration file; None for `pubsubflow.toml` in the current folder, if any.
        environ: Environment variables.
        flags: Values by dotted name, for example `api.port`; None stands for not given.

    Raises:
        ConfigError: The file cannot be read, or names collide with sections.
    """
    tree = _read_file(file)
    # Before the sections of the environment, so that PUBSUBFLOW__HOME takes precedence.
    if environ.get(HOME_ENV):
        tree["home"] = environ[HOME_ENV]
    for name, value in environ.items():
        if name.startswith(ENV_PREFIX):
            _put(tree, _path_of(name.removeprefix(ENV_PREFIX)), value, name)
    for name, given in flags.items():
        if given is not None:
            _put(tree, name.split("."), given, f"--{name}")
    return tree


def home_of(tree: Tree) -> Path:
    """Return the home folder of the settings, or the default one."""
    return Path(tree.get("home", DEFAULT_HOME)).expanduser().absolute()


def _read_file(file: Path | None) -> Tree:
    path = Path(CONFIG_FILE) if file is None else file
    try:
        found: Tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        if file is None:
            return {}
        raise ConfigError(f"configuration file {path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file {path} is not valid TOML: {error}") from error
    return found


def _path_of(name: str) -> list[str]:
    """Return the keys that a variable of the environment names."""
    parts = name.split("__")
    keys = [part.lower() for part in parts]
    for section, written in _USERS_KEYS.items():
        depth = len(section)
        inside = len(keys) > depth and all(
            each in ("*", key) for each, key in zip(section, keys, strict=False)
        )
        if inside:
            return [*keys[:depth], written("__".join(parts[depth:]))]
    return keys


def _put(tree: Tree, path: list[str], value: object, name: str) -> None:
    for section in path[:-1]:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{name} does not name a setting: {section} is not a section")
    tree[path[-1]] = value
