"""All settings of a daemon, typed and checked once; each service gets its own section.

`pubsubflow.toml`, overlaid by `PUBSUBFLOW__SECTION__KEY`, overlaid by flags::

    home = "/var/lib/pubsubflow"

    [api]
    port = 9000

    [worker]
    queues = ["default", "heavy"]
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_origin

import msgspec
from msgspec import Struct, field

from pubsubflow.api.settings import ApiSettings
from pubsubflow.api.stream.settings import LiveSettings
from pubsubflow.bus import BusSettings
from pubsubflow.config.sources import DEFAULT_HOME, Tree, read_layers
from pubsubflow.deliveries.settings import SubscriptionsSettings
from pubsubflow.errors import ConfigError
from pubsubflow.lineage import LineageSettings
from pubsubflow.loader import LoaderSettings
from pubsubflow.metrics.settings import MetricsSettings
from pubsubflow.store.database import PostgresSettings
from pubsubflow.store.secrets.keyring import SecretsSettings
from pubsubflow.tracing.settings import TracesSettings
from pubsubflow.triggerer.settings import TriggererSettings
from pubsubflow.worker import WorkerSettings

_PLACE = re.compile(r"^(?P<what>.*?) - at `\$\.?(?P<path>.*)`$", flags=re.DOTALL)


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say what the daemon's log looks like.

    Attributes:
        format: `console` for people, `json` for programs; one line a fact either way.
        level: The least important facts that are written.
    """

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings.

    Attributes:
        home: Folder of the daemon's own servers; also tells commands where the daemon answers.
        api: The HTTP server.
        postgres: Where Postgres is, unless the daemon starts its own.
        nats: Where NATS is, unless the daemon starts its own.
        secrets: Where the keys of connections are.
        worker: What this daemon's worker takes.
        triggerer: What this daemon runs of what tasks wait for.
        loader: How DAG files are imported.
        lineage: Where OpenLineage events go, if anywhere.
        live: How the live stream is served.
        metrics: What `/metrics` shows.
        traces: Where spans go, if anywhere.
        subscriptions: How events are delivered to those who want them at a URL.
        log: The daemon's own log.
    """

    home: Path = field(default_factory=DEFAULT_HOME.expanduser)
    api: ApiSettings = ApiSettings()
    postgres: PostgresSettings = PostgresSettings()
    nats: BusSettings = BusSettings()
    secrets: SecretsSettings = SecretsSettings()
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    triggerer: TriggererSettings = TriggererSettings()
    loader: LoaderSettings = LoaderSettings()
    lineage: LineageSettings = LineageSettings()
    live: LiveSettings = LiveSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TracesSettings = TracesSettings()
    subscriptions: SubscriptionsSettings = SubscriptionsSettings()
    log: LogSettings = LogSettings()


def load_config(
    *,
    file: Path | None = None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    defaults: Tree | None = None,
) -> Config:
    """Return the configuration.

    Args:
        file: The configuration file; None for `pubsubflow.toml` in the current folder, if any.
        environ: Environment variables.
        flags: Values by dotted name, for example `api.port`; None stands for not given.
        defaults: What holds where nothing is said, by section, in place of the usual defaults.

    Raises:
        ConfigError: A key is unknown, or a value does not fit; the text names its path.
    """
    tree = read_layers(file=file, environ=environ, flags=flags)
    for section, values in (defaults or {}).items():
        tree[section] = {**values, **tree.get(section, {})}
    _check_keys(tree, Config, "")
    try:
        return msgspec.convert(tree, Config, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        found = _PLACE.match(str(error))
        text = f"{found['path']}: {found['what']}" if found else str(error)
        raise ConfigError(f"configuration: {text}") from error


def _check_keys(tree: Tree, kind: type[Struct], path: str) -> None:
    """Refuse keys that no setting has; cut the texts that stand for lists."""
    known = {each.name: each.type for each in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {path}{close[0]}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(f"configuration: {path}{key} is unknown; {hint}")
        section = known[key]
        if isinstance(section, type) and issubclass(section, Struct):
            if not isinstance(value, dict):
                raise ConfigError(f"configuration: {path}{key} is a section, not a value")
            _check_keys(value, section, f"{path}{key}.")
        elif get_origin(section) is tuple and isinstance(value, str):
            tree[key] = [part.strip() for part in value.split(",") if part.strip()]


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser().absolute()
    raise TypeError(f"expected a {kind.__name__}")
