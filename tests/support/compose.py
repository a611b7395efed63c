"""The project's Compose file, read as Compose reads it: merged, with its variables filled in."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).with_name("compose_spec") / "compose-spec.json"
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")


def read_compose(environ=None, path=ROOT / "compose.yaml"):
    """Return the file with the defaults of its variables, or what `environ` sets."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return _fill(found, environ or {})


def read_schema():
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _fill(value, environ):
    if isinstance(value, dict):
        return {name: _fill(each, environ) for name, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, environ) for each in value]
    return _VARIABLE.sub(lambda found: _one(found, environ), value) if _is_text(value) else value


def _is_text(value):
    return isinstance(value, str)


def _one(found, environ):
    if found["name"] is None:
        return "$"
    value = environ.get(found["name"], found["default"])
    assert value is not None, f"{found[0]} has no default"
    return value
