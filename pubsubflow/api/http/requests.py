"""Request parsing turns bodies, query strings and path parameters into checked, typed values."""

import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
import msgspec.inspect
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http.pagination import Cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.errors import NotFound
from pubsubflow.model.json_values import BYTE_ORDER_MARK, json_fault, may_be_unfit

T = TypeVar("T")
Limit = Annotated[int, Meta(ge=1, le=1000, description="How many items at most.")]
_WHERE = re.compile(
    r"^(?P<what>.*?)(?: - at `\$(?:\[(?P<index>\d+)\])?\.?(?P<field>.*)`)?$", flags=re.DOTALL
)
_NAMED_FIELD = re.compile(r"^Object (?:contains unknown|missing required) field `([^`]*)`")


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of a list."""

    limit: Limit = 50
    after: Cursor | None = None


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No query string."""


def parse_query(request: web.Request, kind: type[T]) -> T:
    """Return the query string as a value of `kind`; parameters that are lists may be repeated.

    Raises:
        BadRequest: A parameter is unknown or malformed.
    """
    lists = _list_fields(kind)  # type: ignore[arg-type] # mypy: a type of T is hashable, too
    given: dict[str, Any] = {
        name: request.query.getall(name) if name in lists else request.query[name]
        for name in request.query
    }
    try:
        found = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise validation_problem(error, status=400, where="the query string") from error
    for field in msgspec.structs.fields(kind):  # type: ignore[arg-type] # mypy: T is a Struct
        name = field.encode_name
        # msgspec reads the text `null` as None where the field's type admits it.
        if name in given and getattr(found, field.name) is None:
            raise BadRequest(
                f"the query string is invalid: leave {name} out instead of null",
                status=400,
                field=name,
            )
    return found


async def parse_body(request: web.Request, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the body, decoded.

    Raises:
        BadRequest: It is not JSON, or does not match the decoder's type.
        HTTPRequestEntityTooLarge: It is larger than the settings allow.
    """
    return decode_body(await request.read(), decoder)


def decode_body(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body.

    Raises:
        BadRequest: It is not JSON, does not match the decoder's type, or holds a value that
            cannot be stored; see `json_fault`.
    """
    try:
        value = decoder.decode(data.removeprefix(BYTE_ORDER_MARK))
    except msgspec.ValidationError as error:
        raise validation_problem(error, status=422, where="the body") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", status=400) from error
    # The search is cheap; only a suspicious body is walked through.
    if may_be_unfit(data):
        _check_values(msgspec.to_builtins(value))
    return value


def to_utc(
    time: datetime | None, *, field: str, index: int | None = None, status: int = 422
) -> datetime | None:
    """Return a moment in UTC.

    Args:
        time: A moment with a zone.
        field: Name of its field, for the problem document.
        index: Position of its item in a list, likewise.
        status: HTTP status of the refusal: 400 for a field of the query string.

    Raises:
        BadRequest: It is out of range in UTC.
    """
    try:
        return None if time is None else time.astimezone(UTC)
    except OverflowError:
        text = f"{time} is out of range"
        raise BadRequest(text, status=status, index=index, field=field) from None


def run_id(request: web.Request) -> UUID:
    """Return the run id in the path.

    Raises:
        NotFound: It is not a UUID, so no run has it.
    """
    text = request.match_info["run_id"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("run", text) from None


def validation_problem(error: msgspec.ValidationError, *, status: int, where: str) -> BadRequest:
    """Turn a validation error of msgspec into a problem that names index and field."""
    found = _WHERE.match(str(error))
    if found is None:
        return BadRequest(f"{where} is invalid: {error}", status=status)
    what, index, field = found.group("what", "index", "field")
    named = _NAMED_FIELD.match(what)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    location = f"item {index} of {where}" if index else where
    detail = f"{location} is invalid: {what}" + (f", at {field}" if field and not named else "")
    return BadRequest(
        detail, status=status, index=int(index) if index else None, field=field or None
    )


@cache
def _list_fields(kind: type[Any]) -> frozenset[str]:
    """Return the names of the fields that are lists."""
    info = msgspec.inspect.type_info(kind)
    fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
    return frozenset(
        each.encode_name for each in fields if isinstance(each.type, msgspec.inspect.ListType)
    )


def _check_values(body: Any) -> None:
    is_list = isinstance(body, list)
    for index, item in enumerate(body if is_list else [body]):
        fault = json_fault(item, "the body", nul=True)
        if fault is not None:
            raise BadRequest(fault, index=index if is_list else None)
