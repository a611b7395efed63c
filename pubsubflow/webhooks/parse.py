"""What a request to a webhook says, once it is believed."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.webhooks.request import Delivery

MAX_DEPTH = 100
MAX_FIELDS = 1000
FORM = "application/x-www-form-urlencoded"
_PRIVATE = frozenset(["authorization", "proxy-authorization", "cookie", "x-gitlab-token"])


class Unmappable(InvalidInput):
    """A request that is believed cannot become an event; the text says why."""


class Told(Struct, frozen=True):
    """What a request says, as expressions see it.

    Attributes:
        body: JSON; the fields of a form; any other body as a text; None when it is empty.
        headers: Name in lower case → first value.
        query: Name → first value.
    """

    body: Any
    headers: dict[str, str]
    query: dict[str, str]


class Kept(Struct, frozen=True, omit_defaults=True):
    """What a request says, as a dead letter keeps it; JSON that a person may edit.

    Attributes:
        hook: Name of the webhook.
        headers: Without those that hold credentials.
        unread: A body that could not be read, in base64; an edited one is taken out, or `body`
            put in its place.
    """

    hook: str
    body: Any = None
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    unread: str | None = None


def read(delivery: Delivery) -> Told:
    """Return what a request says.

    Raises:
        Unmappable: The body is not what its content type says.
    """
    told = frame(delivery)
    return Told(read_body(delivery.body, told.headers), told.headers, told.query)


def frame(delivery: Delivery) -> Told:
    """Return what a request says apart from its body."""
    headers: dict[str, str] = {}
    for name, value in delivery.headers:
        headers.setdefault(name, value.decode(errors="replace"))
    query: dict[str, str] = {}
    for name, text in delivery.query:
        query.setdefault(name, text)
    return Told(None, headers, query)


def read_body(data: bytes, headers: Mapping[str, str]) -> Any:
    """Return a body as a value: JSON, the fields of a form, or a text.

    Raises:
        Unmappable: It is not what its content type says, or nested too deeply.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not data:
        return None
    if kind == FORM and not data.startswith(b"{"):  # no form does, but curl calls JSON one
        return _form(data)
    try:
        value = _json(data)
    except Unmappable:
        if kind in ("", "application/json", "text/json") or kind.endswith("+json"):
            raise
        return _text(data)
    return value


def keep(hook: str, delivery: Delivery, *, told: Told | None) -> bytes:
    """Return what a dead letter holds of a request.

    Args:
        hook: Name of the webhook.
        delivery: The request.
        told: What it says; None when its body could not be read.
    """
    outside = frame(delivery)
    headers = {name: text for name, text in outside.headers.items() if name not in _PRIVATE}
    if told is None:
        unread = base64.b64encode(delivery.body).decode()
        return msgspec.json.encode(Kept(hook, None, headers, outside.query, unread))
    return msgspec.json.encode(Kept(hook, told.body, headers, outside.query))


def read_kept(payload: bytes) -> tuple[str, Told]:
    """Return the webhook's name and what a request said, from a dead letter.

    Raises:
        Unmappable: It was edited into something else, or its body still cannot be read.
    """
    try:
        kept = msgspec.json.decode(payload, type=Kept)
        data = None if kept.unread is None else base64.b64decode(kept.unread, validate=True)
    except (msgspec.DecodeError, binascii.Error, RecursionError) as error:
        raise Unmappable(
            f"the payload is not what a webhook's dead letter holds: {error}"
        ) from error
    body = kept.body if data is None else read_body(data, kept.headers)
    check_depth(body)
    return kept.hook, Told(body, kept.headers, kept.query)


def check_depth(value: Any) -> None:
    """Check that a value is not nested too deeply for what comes after.

    Raises:
        Unmappable: It is.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for each in level
            if isinstance(each, list | dict)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise Unmappable(f"the body is nested more than {MAX_DEPTH} levels deep")


def _json(data: bytes) -> Any:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unmappable(f"the body is no JSON: {error}") from error
    check_depth(value)
    return value


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unmappable(f"the body is no text in UTF-8: {error}") from error


def _form(data: bytes) -> Any:
    """Return the fields of a form; the JSON in its only field `payload`, as GitHub and Slack do."""
    try:
        pairs = parse_qsl(_text(data), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise Unmappable(f"the form cannot be read: {error}") from error
    fields: dict[str, str] = {}
    for name, text in pairs:
        fields.setdefault(name, text)
    if fields.keys() == {"payload"} and fields["payload"].startswith("{"):
        return _json(fields["payload"].encode())
    return fields
