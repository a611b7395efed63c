"""Pagination cursors hold the position after which the next page of a list begins.

A cursor is opaque to clients. It holds the list's name and a position in its order, never a count,
so a list may grow and shrink between two pages: no item is repeated, and none that stays is
skipped.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from msgspec import Meta

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.shown import rights_of_request, shown_items
from pubsubflow.model.api.resources import Page


class Named(Protocol):
    """An item of a list in the order of names."""

    @property
    def name(self) -> str:
        """Its name, which no other item of the list has."""


T = TypeVar("T")
N = TypeVar("N", bound=Named)
P = TypeVar("P", bound=Page[Any])
_MAX_CHARACTERS = 8000

Cursor = Annotated[
    str,
    Meta(
        max_length=_MAX_CHARACTERS,
        description="The `next` of the page before.",
        extra_json_schema={"format": "cursor"},
    ),
]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


_MOST_READS = 500


async def seen_page(
    read: Callable[[Any, int], Awaitable[P]],
    after: object | None,
    limit: int,
    kind: Callable[[str], Any] = int,
) -> P:
    """Return a page of what the principal of the request may see.

    What it may not see is skipped by reading on: a page is shorter than the limit only at the end
    of the list, or after 500 reads. A page that was filled ends with an item that is shown, so no
    cursor holds a name that is not.

    Args:
        read: Reads a page after a position, of so many items at most.
        after: The position of the request's cursor.
        limit: How many items at most.
        kind: Makes the position of the `next` of a page.
    """
    page = await read(after, limit)
    rights = rights_of_request()
    if rights is None or rights.sees_all:
        return page
    items, position, reads = shown_items(page.items), page.next, 1
    while position is not None and len(items) < limit and reads < _MOST_READS:
        page = await read(kind(position), limit - len(items))
        items += shown_items(page.items)
        position, reads = page.next, reads + 1
    return msgspec.structs.replace(page, items=items, next=position)


def with_cursor(name: str, page: P) -> P:
    """Return a page whose `next` is a cursor.

    Args:
        name: The list's name, which no other list has.
        page: Its `next` is a position in the list's order, as text.
    """
    if page.next is None:
        return page
    return msgspec.structs.replace(page, next=cursor_at(name, page.next))


def cursor_at(name: str, position: str) -> str:
    """Return a cursor of a list; see `read_cursor`.

    Args:
        name: The list's name, which no other list has.
        position: A position in its order.
    """
    return urlsafe_b64encode(f"{name}\n{position}".encode()).rstrip(b"=").decode()


def page_by_name(name: str, found: Sequence[N], limit: int) -> Page[N]:
    """Return a page of a list in the order of names.

    Args:
        name: The list's name.
        found: The items after the cursor: at least one more than the limit if there are so many.
        limit: How many items a page has at most.
    """
    items = list(found[:limit])
    return with_cursor(name, Page(items, items[-1].name if len(found) > limit else None))


def read_cursor(name: str, cursor: str | None, kind: type[T]) -> T | None:
    """Return the position that a cursor holds; None without a cursor.

    Args:
        name: The list's name.
        cursor: The cursor of the request.
        kind: Type of the position.

    Raises:
        BadRequest: It is not a cursor of this list.
    """
    if cursor is None:
        return None
    try:
        return msgspec.convert(_decode(name, cursor), kind, strict=False)
    except (ValueError, msgspec.ValidationError):  # of base64, of UTF-8, of the position
        raise BadRequest(
            "after is not a cursor of this list: use the `next` of the page before, or leave it "
            "out",
            status=400,
            field="after",
        ) from None


def _decode(name: str, cursor: str) -> str | None:
    """Return the position that a cursor holds; None if it is another list's, or forged."""
    text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    found, _, position = text.partition("\n")
    # Encoded again, because base64 has several spellings of the same bytes.
    valid = found == name and "\x00" not in position and cursor_at(name, position) == cursor
    return position if valid else None
