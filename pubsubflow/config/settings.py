"""Configuration of a daemon: typed, checked once, with a section for each service.

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
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct, field

from pubsubflow.airflow.outside.settings import AirflowBundleSettings
from pubsubflow.alerts.settings import AlertSettings
from pubsubflow.api.oidc.settings import OidcSettings
from pubsubflow.api.settings import ApiSettings
from pubsubflow.api.stream.settings import StreamSettings
from pubsubflow.bus.settings import BusSettings
from pubsubflow.config.expected import explain_misfit
from pubsubflow.config.sources import DEFAULT_HOME, Tree, read_sources
from pubsubflow.deliveries.settings import DeliverySettings
from pubsubflow.errors import ConfigError
from pubsubflow.lineage.settings import LineageSettings
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.metrics.settings import MetricsSettings
from pubsubflow.retention.settings import LogStoreSettings, RetentionSettings
from pubsubflow.store.secrets.keyring import SecretsSettings
from pubsubflow.store.servers.settings import PostgresSettings
from pubsubflow.tracing.settings import TracesSettings
from pubsubflow.triggerer.settings import TriggererSettings
from pubsubflow.worker.settings import ResultStoreSettings, WorkerSettings

# Section, the interval of a renewal, and the time after which what is not renewed is over.
_INTERVALS = (
    ("worker", "heartbeat_seconds", "ack_wait_seconds"),
    ("triggerer", "heartbeat_seconds", "silent_seconds"),
    ("triggerer", "block_seconds", "stuck_seconds"),
)
_ERROR_PATH = re.compile(r"^(?P<what>.*?) - at `\$\.?(?P<path>.*)`$", flags=re.DOTALL)


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the daemon's log.

    Attributes:
        format: `console` for people, `json` for programs.
        level: Minimum level of the log events written.
    """

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a daemon.

    Attributes:
        home: Folder of the embedded servers; commands find the daemon by it.
        api: The HTTP server.
        oidc: The provider at which people sign in to the page.
        postgres: The connection to Postgres, unless that is embedded.
        nats: The connection to NATS, unless that is embedded.
        secrets: The keyring of connections.
        worker: The worker: queues, slots, runner processes.
        triggerer: The triggerer: capacity, watchdog.
        loader: The import of DAG files.
        lineage: The transport of OpenLineage events.
        live: The live stream.
        metrics: The metrics at `/metrics`.
        traces: The export of spans.
        subscriptions: Outbound deliveries of events to URLs.
        retention: How long what has happened is kept.
        logs: Where output of tasks is kept.
        results: Where large results of tasks are kept.
        alerts: Calls of callbacks, and alerts.
        executors: Executors of plugins that the worker offers, by name: each has a section, with
            `slots`, `nats_url`, and what it declares itself.
        bundles: Folders of the DAGs folder whose files are Airflow's, by name.
        log: The daemon's log.
    """

    home: Path = field(default_factory=DEFAULT_HOME.expanduser)
    api: ApiSettings = ApiSettings()
    oidc: OidcSettings = field(default_factory=OidcSettings)
    postgres: PostgresSettings = PostgresSettings()
    nats: BusSettings = BusSettings()
    secrets: SecretsSettings = SecretsSettings()
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    triggerer: TriggererSettings = TriggererSettings()
    loader: LoaderSettings = LoaderSettings()
    lineage: LineageSettings = LineageSettings()
    live: StreamSettings = StreamSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TracesSettings = TracesSettings()
    subscriptions: DeliverySettings = DeliverySettings()
    retention: RetentionSettings = RetentionSettings()
    logs: LogStoreSettings = LogStoreSettings()
    results: ResultStoreSettings = ResultStoreSettings()
    alerts: AlertSettings = AlertSettings()
    executors: dict[str, dict[str, Any]] = {}
    bundles: dict[str, AirflowBundleSettings] = {}
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
        defaults: Defaults by section, in place of the usual ones.

    Raises:
        ConfigError: A key is unknown, or a value does not fit; the message has its path.
    """
    tree = read_sources(file=file, environ=environ, flags=flags)
    for section, values in (defaults or {}).items():
        tree[section] = {**values, **tree.get(section, {})}
    # Checked here and not by msgspec, whose error for an unknown key has no suggestion.
    _check_keys(tree, Config, "")
    try:
        config = msgspec.convert(tree, Config, strict=False, dec_hook=_convert_path)
    except msgspec.ValidationError as error:
        found = _ERROR_PATH.match(str(error))
        text = str(error)
        if found:
            text = explain_misfit(tree, Config, found["path"], found["what"])
        raise ConfigError(f"configuration: {text}") from error
    _check_intervals(config)
    return config


def _check_intervals(config: Config) -> None:
    """Check that what is renewed is renewed before it is over."""
    for section, often, limit in _INTERVALS:
        settings = getattr(config, section)
        most = getattr(settings, limit) / 2
        if getattr(settings, often) > most:
            raise ConfigError(
                f"configuration: {section}.{often} is {getattr(settings, often):g}: at most "
                f"{most:g} is expected, half of {section}.{limit}"
            )


def _check_keys(tree: Tree, kind: type[Struct], path: str) -> None:
    """Check that all keys are settings, and split texts that are given for lists."""
    known = {each.name: each.type for each in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {path}{close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"configuration: {path}{key} is unknown; {hint}")
        section = known[key]
        if isinstance(section, type) and issubclass(section, Struct):
            if not isinstance(value, dict):
                raise ConfigError(f"configuration: {path}{key} is a section, not a value")
            _check_keys(value, section, f"{path}{key}.")
        elif _is_tuple(section):
            tree[key] = _split(value)
        elif isinstance(value, dict) and get_origin(section) is dict:
            lists = _is_tuple(get_args(section)[1])
            tree[key] = {name: _split(each) if lists else each for name, each in value.items()}


def _split(value: Any) -> Any:
    """Return the parts of a text that is given for a list, as in the environment."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _is_tuple(kind: Any) -> bool:
    return get_origin(get_args(kind)[0] if get_origin(kind) is Annotated else kind) is tuple


def _convert_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser().absolute()
    raise TypeError(f"expected a {kind.__name__}")
