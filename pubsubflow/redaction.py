"""Redaction replaces secrets in logs and responses: named fields, our tokens, passwords in URLs."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_SECRET_NAME = re.compile(
    r"token|secret|passw|authorization|cookie|credential|api_?key|private_?key", re.IGNORECASE
)
_TOKEN = re.compile(r"psf_[A-Za-z0-9_-]{40,}")
_BEARER = re.compile(r"\b(Bearer|Basic) [A-Za-z0-9._~+/=-]{16,}")
_USER_INFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/?#\s'\"@]*@")


def looks_secret(name: str) -> bool:
    """Return whether a name is that of a secret, such as `db_password`."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Return a text without tokens, credentials of headers, and users and passwords of URLs."""
    # The cheap searches first: nearly every log line has neither a token nor a URL.
    if "psf_" in text:
        text = _TOKEN.sub(f"psf_{MASK}", text)
    if "://" in text:
        text = _USER_INFO.sub(rf"\1{MASK}@", text)
    return _BEARER.sub(rf"\1 {MASK}", text)


def redact_event(_logger: object, _method: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Redact the secrets of a log event before it is rendered; a processor of structlog."""
    return {name: _redacted(name, value) for name, value in event.items()}


def redact_rendered(_logger: object, _method: str, written: Any) -> Any:
    """Redact a rendered line, as for its traceback; a processor after the renderer."""
    return redact(written) if isinstance(written, str) else written


def _redacted(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return MASK if value and _SECRET_NAME.search(name) else redact(value)
    if isinstance(value, bytes) and _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: _redacted(str(key), each) for key, each in value.items()}
    # Subclasses, such as named tuples, cannot be built from an iterable; they stay as they are.
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_redacted(name, each) for each in value)
    return value
