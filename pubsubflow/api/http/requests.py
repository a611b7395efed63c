"""What requests hold: bodies, query strings, ids; checked here and typed from then on."""

import re
from datetime import UTC, datetime
from functools import cache, partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
import msgspec.inspect
from aiohttp import web
from msgspec import Meta, Struct

from pubsubflow.api.http.pagination import Cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.errors import NotFound

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


def query(request: web.Request, kind: type[T]) -> T:
    """Return the query string as a value of `kind`; what is a list there may be repeated.

    Raises:
        BadRequest: A parameter is unknown or malformed.
    """
    lists = _lists(kind)  # type: ignore[arg-type] # mypy: a type of T is hashable, too
    given: dict[str, Any] = {
        name: request.query.getall(name) if name in lists else request.query[name]
        for name in request.query
    }
    try:
        found = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise misfit(error, status=400, of="the query string") from error
    for name in given:
        if getattr(found, name) is None:  # msgspec reads the text null so, where it fits no better
            raise BadRequest(
                f"the query string does not fit: leave {name} out if it is to be none",
                status=400,
                field=name,
            )
    return found


async def body(request: web.Request, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the body, decoded.

    Raises:
        BadRequest: It is no JSON, or not of the form that is asked for.
        HTTPRequestEntityTooLarge: It is larger than the settings allow.
    """
    return decode(await request.read(), decoder)


def decode(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body.

    Raises:
        BadRequest: It is no JSON, or not of the form that is asked for, or holds what no
            database can store.
    """
    try:
        value = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise misfit(error, status=422, of="the body") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}", status=400) from error
    if b"\\u0000" in data and _holds_nul(msgspec.to_builtins(value)):
        raise BadRequest("the body holds the character \\u0000, which cannot be stored")
    return value


def check_numbers(values: list[Any]) -> None:
    """Refuse integers beyond 64 bits, which have no form on the wire.

    Args:
        values: JSON values, one an item of the request.

    Raises:
        BadRequest: One of them holds such an integer.
    """
    try:
        _pack(values)
    except OverflowError:
        index = next(filter(partial(_too_large, values), range(len(values))), None)
        raise BadRequest("an integer has more than 64 bits; send it as text", index=index) from None


def utc(time: datetime | None, *, field: str, index: int | None = None) -> datetime | None:
    """Return a moment in UTC.

    Args:
        time: A moment with a zone.
        field: What it stands in, for the problem.
        index: Position of the item in a list, likewise.

    Raises:
        BadRequest: It is out of range there.
    """
    try:
        return None if time is None else time.astimezone(UTC)
    except OverflowError:
        raise BadRequest(f"{time} is out of range", index=index, field=field) from None


def run_id(request: web.Request) -> UUID:
    """Return the run id in the path.

    Raises:
        NotFound: It is none.
    """
    text = request.match_info["run_id"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("run", text) from None


def misfit(error: msgspec.ValidationError, *, status: int, of: str) -> BadRequest:
    """Turn a decoder's complaint into a problem that names index and field."""
    found = _WHERE.match(str(error))
    if found is None:
        return BadRequest(f"{of} does not fit: {error}", status=status)
    what, index, field = found.group("what", "index", "field")
    named = _NAMED_FIELD.match(what)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    place = f"item {index} of {of}" if index else of
    detail = f"{place} does not fit: {what}" + (f", at {field}" if field and not named else "")
    return BadRequest(
        detail, status=status, index=int(index) if index else None, field=field or None
    )


@cache
def _lists(kind: type[Any]) -> frozenset[str]:
    """Return which fields are lists."""
    info = msgspec.inspect.type_info(kind)
    fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
    return frozenset(
        each.encode_name for each in fields if isinstance(each.type, msgspec.inspect.ListType)
    )


_pack = msgspec.msgpack.Encoder().encode


def _too_large(values: list[Any], index: int) -> bool:
    try:
        _pack(values[index])
    except OverflowError:
        return True
    return False


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
