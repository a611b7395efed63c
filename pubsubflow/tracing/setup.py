"""The setup of tracing, where the settings or OpenTelemetry's own variables turn it on."""

import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import structlog

from pubsubflow.errors import ConfigError
from pubsubflow.model.traces import NoTracing, Tracing
from pubsubflow.tracing.settings import TracesSettings

log = structlog.get_logger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXTRA = "traces need OpenTelemetry: pip install 'pubsubflow[otel]'"


@asynccontextmanager
async def open_tracing(
    settings: TracesSettings, environ: Mapping[str, str], *, needed: bool = True
) -> AsyncIterator[Tracing]:
    """Export spans within the block; at its end the rest is flushed, within a time limit.

    Args:
        settings: The endpoint.
        environ: Environment variables.
        needed: Whether the daemon has a role that records spans.

    Raises:
        ConfigError: The endpoint is not an address, or the extra `otel` is not installed.
    """
    if not needed or not _is_on(settings, environ):
        yield NoTracing()
        return
    # Imported only where tracing is on: OpenTelemetry is an optional dependency.
    try:
        otel = importlib.import_module("pubsubflow.tracing.otel")
    except ModuleNotFoundError as error:
        if settings.endpoint or (error.name or "").split(".")[0] != "opentelemetry":
            raise ConfigError(_EXTRA) from error
        log.warning("tracing.skipped", reason=f"OTEL_… variables are set, but {_EXTRA}")
        yield NoTracing()
        return
    async with otel.export_spans(settings.endpoint, environ) as tracing:
        yield tracing


def _is_on(settings: TracesSettings, environ: Mapping[str, str]) -> bool:
    if settings.endpoint:
        parts = urlsplit(settings.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"traces.endpoint {settings.endpoint!r} is not an address: give one such as "
                "http://collector:4318/v1/traces"
            )
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if settings.endpoint:
        return True
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp")
    return exporter == "otlp" and any(environ.get(name) for name in _ENDPOINTS)
