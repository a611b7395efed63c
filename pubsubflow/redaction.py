"""Keeps secrets out of logs and answers: what is called a secret, our tokens, passwords in URLs."""

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


def masked(text: str) -> str:
    """Return a text without tokens, credentials of headers, and users and passwords of URLs."""
    if "psf_" in text:
        text = _TOKEN.sub(f"psf_{MASK}", text)
    if "://" in text:
        text = _USER_INFO.sub(rf"\1{MASK}@", text)
    return _BEARER.sub(rf"\1 {MASK}", text)


def mask(_logger: object, _method: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Mask a fact's secrets before it is written; a processor of structlog."""
    return {name: _value(name, value) for name, value in event.items()}


def mask_written(_logger: object, _method: str, written: Any) -> Any:
    """Mask what a written line still holds, such as a traceback; a processor after the last."""
    return masked(written) if isinstance(written, str) else written


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return MASK if value and _SECRET_NAME.search(name) else masked(value)
    if isinstance(value, bytes) and _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: _value(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_value(name, each) for each in value)
    return value
