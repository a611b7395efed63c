"""Parsed webhook requests: body, headers and query as values, once the request is verified."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.model.json_values import BYTE_ORDER_MARK, json_fault, may_be_unfit
from pubsubflow.webhooks.request import WebhookRequest

MAX_FIELDS = 1000
FORM = "application/x-www-form-urlencoded"
_PRIVATE = frozenset(["authorization", "proxy-authorization", "cookie", "x-gitlab-token"])


class Unmappable(InvalidInput):
    """A verified request cannot become an event; the text says why."""


class ParsedRequest(Struct, frozen=True):
    """A request as CEL expressions see it.

    Attributes:
        body: JSON; the fields of a form; any other body as a text; None if it is empty.
        headers: Name in lower case → first value.
        query: Name → first value.
    """

    body: Any
    headers: dict[str, str]
    query: dict[str, str]


class KeptRequest(Struct, frozen=True, omit_defaults=True):
    """A request as a dead letter keeps it: JSON that a person may edit.

    Attributes:
        hook: Name of the webhook.
        headers: Without those that hold credentials.
        unread: A body that could not be parsed, in base64. It takes precedence over `body`: an
            edited payload must leave it out.
    """

    hook: str
    body: Any = None
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    unread: str | None = None


def parse_request(raw: WebhookRequest) -> ParsedRequest:
    """Parse a request.

    Raises:
        Unmappable: The body does not match its content type.
    """
    parsed = parse_head(raw)
    return ParsedRequest(parse_body(raw.body, parsed.headers), parsed.headers, parsed.query)


def parse_head(raw: WebhookRequest) -> ParsedRequest:
    """Parse a request without its body."""
    headers: dict[str, str] = {}
    for name, value in raw.headers:
        headers.setdefault(name, value.decode(errors="replace"))
    query: dict[str, str] = {}
    for name, text in raw.query:
        query.setdefault(name, text)
    return ParsedRequest(None, headers, query)


def parse_body(data: bytes, headers: Mapping[str, str]) -> Any:
    """Return a body as a value: JSON, the fields of a form, or a text.

    Raises:
        Unmappable: It does not match its content type, or is nested too deeply.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    data = data.removeprefix(BYTE_ORDER_MARK)
    if not data:
        return None
    # curl labels JSON as a form unless a content type is set; a form does not begin with a brace.
    if kind == FORM and not data.startswith(b"{"):
        return _form(data)
    try:
        value = _json(data)
    except Unmappable:
        if kind in ("", "application/json", "text/json") or kind.endswith("+json"):
            raise
        return _text(data)
    return value


def encode_kept(hook: str, raw: WebhookRequest, *, parsed: ParsedRequest | None) -> bytes:
    """Return the payload of a dead letter that keeps a request.

    Args:
        hook: Name of the webhook.
        raw: The request.
        parsed: The request, parsed; None if its body could not be.
    """
    head = parse_head(raw)
    headers = {name: text for name, text in head.headers.items() if name not in _PRIVATE}
    if parsed is None:
        unread = base64.b64encode(raw.body).decode()
        return msgspec.json.encode(KeptRequest(hook, None, headers, head.query, unread))
    return msgspec.json.encode(KeptRequest(hook, parsed.body, headers, head.query))


def decode_kept(payload: bytes) -> tuple[str, ParsedRequest]:
    """Return the webhook's name and the parsed request, from the payload of a dead letter.

    Raises:
        Unmappable: The payload was edited into another form, or the body still cannot be parsed.
    """
    try:
        kept = msgspec.json.decode(payload, type=KeptRequest)
        data = None if kept.unread is None else base64.b64decode(kept.unread, validate=True)
    except (msgspec.DecodeError, binascii.Error, RecursionError) as error:
        raise Unmappable(
            f"the payload does not have the form of a webhook's dead letter: {error}"
        ) from error
    body = kept.body if data is None else parse_body(data, kept.headers)
    check_value(body, "the body")
    return kept.hook, ParsedRequest(body, kept.headers, kept.query)


def check_value(value: Any, name: str) -> None:
    """Check that encoders and the interpreter of CEL take a value as it is.

    Raises:
        Unmappable: They do not; see `json_fault`.
    """
    # CEL has integers of 64 bits: it would round larger ones.
    fault = json_fault(value, name)
    if fault is not None:
        raise Unmappable(fault)


def _json(data: bytes) -> Any:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unmappable(f"the body is not JSON: {error}") from error
    if may_be_unfit(data):
        check_value(value, "the body")
    return value


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Unmappable(f"the body is not UTF-8 text: {error}") from error


def _form(data: bytes) -> Any:
    """Return the fields of a form; the JSON in its only field `payload`, as GitHub and Slack do."""
    try:
        pairs = parse_qsl(_text(data), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise Unmappable(f"the form cannot be parsed: {error}") from error
    fields: dict[str, str] = {}
    for name, text in pairs:
        fields.setdefault(name, text)
    if fields.keys() == {"payload"} and fields["payload"].startswith("{"):
        return _json(fields["payload"].encode())
    return fields
