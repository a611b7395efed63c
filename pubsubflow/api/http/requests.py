"""Request parsing turns bodies, query strings and path parameters into checked, typed values."""

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
        BadRequest: It is not JSON, does not match the decoder's type, or holds a NUL character.
    """
    try:
        value = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise validation_problem(error, status=422, where="the body") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", status=400) from error
    # The search for the escape is cheap; only a body that has it is walked through, because the
    # backslash itself may be escaped.
    if b"\\u0000" in data and _holds_nul(msgspec.to_builtins(value)):
        raise BadRequest("the body holds the character \\u0000, which cannot be stored")
    return value


def check_integers(values: list[Any]) -> None:
    """Refuse integers beyond 64 bits, which MessagePack cannot encode.

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


def to_utc(time: datetime | None, *, field: str, index: int | None = None) -> datetime | None:
    """Return a moment in UTC.

    Args:
        time: A moment with a zone.
        field: Name of its field, for the problem document.
        index: Position of its item in a list, likewise.

    Raises:
        BadRequest: It is out of range in UTC.
    """
    try:
        return None if time is None else time.astimezone(UTC)
    except OverflowError:
        raise BadRequest(f"{time} is out of range", index=index, field=field) from None


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
