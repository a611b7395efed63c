"""Export files of Airflow: connections, variables and pools, as `airflow … export` writes them."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Struct

from pubsubflow.errors import ConfigError, InvalidInput

_FIELDS = ("conn_type", "host", "login", "password", "schema", "port", "extra")
_EXTRA = "__extra__"


class AirflowPool(Struct, frozen=True):
    """A pool as Airflow exports it; a negative number of slots stands for no limit."""

    slots: int
    description: str | None = None
    include_deferred: bool = False


class AirflowVariable(Struct, frozen=True):
    """A variable as Airflow exports it: a text, or what its text is in JSON."""

    value: Any
    description: str | None = None

    @property
    def text(self) -> str:
        """What Airflow has stored."""
        if isinstance(self.value, str):
            return self.value
        return msgspec.json.encode(self.value).decode()


def read_variables(file: Path) -> dict[str, AirflowVariable]:
    """Return key → variable, from a file of `airflow variables export`.

    Raises:
        ConfigError: The file cannot be read.
        InvalidInput: It is not such a file.
    """
    return {key: _variable(value) for key, value in _mapping(file, _read(file)).items()}


def _variable(value: Any) -> AirflowVariable:
    # Only a variable with a description is exported as an object of the two.
    if isinstance(value, dict) and "value" in value and value.keys() <= {"value", "description"}:
        return AirflowVariable(value["value"], value.get("description"))
    return AirflowVariable(value)


def read_connections(file: Path) -> dict[str, dict[str, Any]]:
    """Return name → fields as the SDK names them, from a file of `airflow connections export`.

    JSON, YAML, and lines NAME=URI or NAME=JSON are understood.

    Raises:
        ConfigError: The file cannot be read.
        InvalidInput: It is not such a file.
    """
    text = _read(file)
    if file.suffix not in (".json", ".yaml", ".yml") and not text.lstrip().startswith("{"):
        return dict(_line(file, line) for line in text.splitlines() if _counts(line))
    return {name: _connection(file, name, each) for name, each in _mapping(file, text).items()}


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _line(file: Path, line: str) -> tuple[str, dict[str, Any]]:
    name, equals, value = line.strip().removeprefix("export ").partition("=")
    if not equals:
        raise InvalidInput(f"{file}: a line is NAME=URI or NAME=JSON, not {line[:20]!r}")
    name, value = name.strip(), value.strip().strip("'\"")
    if name.startswith("AIRFLOW_CONN_"):
        name = name.removeprefix("AIRFLOW_CONN_").lower()
    return name, _connection(file, name, value)


def _connection(file: Path, name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _decoded(file, value)
    if isinstance(value, str):
        return connection_of_uri(value)
    if not isinstance(value, dict) or not value.get("conn_type"):
        raise InvalidInput(f"{file}: connection {name!r} has no conn_type")
    kept = {key: value[key] for key in _FIELDS if value.get(key) not in (None, "")}
    extra = kept.get("extra")
    if isinstance(extra, dict):
        kept["extra"] = msgspec.json.encode(extra).decode()
    return kept


def connection_of_uri(uri: str) -> dict[str, Any]:
    """Return the fields of a connection that is written as Airflow's URI."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = query.pop(_EXTRA, None) or (msgspec.json.encode(query).decode() if query else None)
    # Airflow writes the type with dashes, and `http+https` as the scheme of the host.
    kind = parts.scheme.replace("-", "_").replace("postgresql", "postgres")
    fields = {
        "conn_type": kind,
        "host": unquote(parts.hostname or ""),
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "schema": unquote(parts.path.removeprefix("/")),
        "port": parts.port,
        "extra": extra,
    }
    return {key: value for key, value in fields.items() if value not in (None, "")}


def read_pools(file: Path) -> dict[str, AirflowPool]:
    """Return name → pool, from a file of `airflow pools export`.

    Raises:
        ConfigError: The file cannot be read.
        InvalidInput: It is not such a file.
    """
    try:
        return msgspec.convert(_mapping(file, _read(file)), dict[str, AirflowPool])
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{file} is not an export of Airflow's pools: {error}") from error


def read_paused(file: Path) -> dict[str, bool]:
    """Return id of a DAG → whether it is paused, from the output of `airflow dags list -o json`.

    Raises:
        ConfigError: The file cannot be read.
        InvalidInput: It is not such a file.
    """
    found = _decoded(file, _read(file))
    try:
        rows = msgspec.convert(found, list[dict[str, Any]])
        return {str(row["dag_id"]): str(row["is_paused"]).lower() == "true" for row in rows}
    except (msgspec.ValidationError, KeyError):
        raise InvalidInput(f"{file} is not the output of `airflow dags list -o json`") from None


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidInput(f"{file} is not a text") from None


def _mapping(file: Path, text: str) -> dict[str, Any]:
    found = _yaml(file, text) if file.suffix in (".yaml", ".yml") else _decoded(file, text)
    if not isinstance(found, dict):
        raise InvalidInput(f"{file} holds no object of names")
    return found


def _decoded(file: Path, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file} is not JSON: {error}") from error


def _yaml(file: Path, text: str) -> Any:
    try:
        return msgspec.yaml.decode(text)
    except ImportError:
        raise ConfigError(
            f"{file} is YAML: install PyYAML, or export it as JSON: --file-format json"
        ) from None
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file} is not YAML: {error}") from error
