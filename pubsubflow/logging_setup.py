"""Logging of the daemon: one event a line, on stderr."""

import logging
import sys
from collections.abc import Mapping
from io import StringIO
from typing import Any, TextIO

from pubsubflow.config import LogSettings
from pubsubflow.model.lazy_import import hidden
from pubsubflow.redaction import redact_event, redact_rendered
from pubsubflow.terminal_text import terminal_safe, terminal_safe_line

# What structlog imports where it can, and nothing here uses: with it that takes twice as long.
with hidden("rich", "better_exceptions", "colorama", "greenlet"):
    import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    redact_event,
]


def set_up_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Configure structlog and `logging`, which libraries use.

    Args:
        settings: Format and level.
        stream: The output; stderr by default.
    """
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    render = _renderer(settings, stream)
    structlog.configure(
        processors=[*_SHARED, *render, redact_rendered],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *render,
                redact_rendered,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))


def _renderer(settings: LogSettings, stream: TextIO) -> list[Any]:
    if settings.format == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        render_error = structlog.processors.ExceptionRenderer(tracebacks)
        return [render_error, structlog.processors.JSONRenderer()]
    return [
        _make_terminal_safe,
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_write_traceback),
    ]


def _make_terminal_safe(_logger: object, _method: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Escape control characters before the renderer adds its own; a processor of structlog."""
    safe = {
        name: terminal_safe(value) if isinstance(value, str) else value
        for name, value in event.items()
    }
    return safe | {"event": terminal_safe_line(str(event.get("event", "")))}


def _write_traceback(stream: TextIO, error: Any) -> None:
    # Not rich's tracebacks: they take up to a second each, and show local variables with secrets.
    written = StringIO()
    structlog.dev.plain_traceback(written, error)
    stream.write(terminal_safe(written.getvalue()))
