"""Look-ups in the table of old names, for what the interpreter lacks."""

import functools
import importlib
import importlib.util
import sys
from typing import NamedTuple

from pubsubflow.airflow.inside.legacy.moved import PREFIXES, ROWS

STAND_INS = PREFIXES["here"]
_ANY = "*"


class Row(NamedTuple):
    """One old name and its successor.

    Attributes:
        module: The old module.
        name: The old name, or `*` for every name of the module that has no row.
        new_module: The module of today; empty when there is none.
        new_name: The name of today.
        remedy: What to write, when it has no successor.
    """

    module: str
    name: str
    new_module: str
    new_name: str
    remedy: str = ""

    def for_name(self, name: str) -> "Row":
        """Return the row of one name."""
        new = name if self.new_name == _ANY else self.new_name
        return self._replace(name=name, new_name=new)

    @property
    def today(self) -> str:
        """What to write instead, as a line of code or as a sentence."""
        if self.remedy:
            return self.remedy
        if self.new_module == STAND_INS:
            return INSTEAD.get(self.new_name, "") or _SQL_INSTEAD
        return f"from {self.new_module} import {self.new_name}"


INSTEAD = {
    "days_ago": "write a fixed start: pendulum.datetime(2024, 1, 1)",
    "identity": "leave it out: operators apply defaults by themselves",
    "configuration_get": "from airflow.sdk.configuration import conf; conf.get(...)",
    "configuration_getboolean": "from airflow.sdk.configuration import conf; conf.getboolean(...)",
    "configuration_getint": "from airflow.sdk.configuration import conf; conf.getint(...)",
    "mkdirs": "use pathlib: Path(...).mkdir(parents=True, exist_ok=True)",
    "DatasetOrTimeSchedule": "from airflow.timetables.assets import AssetOrTimeSchedule (assets=)",
    "Port": "from kubernetes.client import V1ContainerPort",
    "Volume": "from kubernetes.client import V1Volume",
    "VolumeMount": "from kubernetes.client import V1VolumeMount",
}
_SQL_INSTEAD = (
    "from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator, with conn_id="
)


def rows() -> tuple[Row, ...]:
    """Return the whole table, without abbreviations."""
    return tuple(row for names in _table().values() for row in names.values())


def find_row(module: str, name: str) -> Row | None:
    """Return the row of an old name; None if it has none, or if the interpreter has the name."""
    names = _table().get(module)
    # Looked up first: to know whether the interpreter has a name, its module is imported.
    if names is None or (row := names.get(name) or names.get(_ANY)) is None:
        return None
    return None if has_name(module, name) else row.for_name(name)


def is_old_module(module: str) -> bool:
    """Whether a module is in the table and is lacking in the interpreter."""
    return module in _table() and not has_module(module)


def renamed_names(module: str) -> list[str]:
    """Return the names of a module that have rows of their own."""
    return [name for name in _table()[module] if name != _ANY]


def star_module(module: str) -> str | None:
    """Return the module of today that holds all other names of an old module."""
    row = _table()[module].get(_ANY)
    return row.new_module if row and row.new_module else None


@functools.cache
def has_module(module: str) -> bool:
    """Whether the interpreter has a module."""
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        found = False
    # Airflow makes some modules without a spec when the package is imported that they are in.
    return found or module in sys.modules


@functools.cache
def has_name(module: str, name: str) -> bool:
    """Whether a module of the interpreter has a name; a module that cannot be imported has none."""
    if not has_module(module):
        return False
    try:
        found = importlib.import_module(module)
    except Exception:  # noqa: BLE001 - a broken provider is told by the file that imports it
        return False
    return hasattr(found, name) or (hasattr(found, "__path__") and has_module(f"{module}.{name}"))


@functools.cache
def _table() -> dict[str, dict[str, Row]]:
    table: dict[str, dict[str, Row]] = {}
    for line in ROWS.split("\n"):
        if line:
            row = _parse(line)
            table.setdefault(row.module, {})[row.name] = row
    return table


def _parse(line: str) -> Row:
    module, name, target, rest = line.split("  ", 3)
    if target == "-":
        return Row(_whole(module), name, "", "", rest)
    return Row(_whole(module), name, _whole(target), rest)


def _whole(module: str) -> str:
    first, dot, rest = module.partition(".")
    return PREFIXES.get(first, first) + dot + rest
