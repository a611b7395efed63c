"""Cursors: where the next page of a list goes on, in a form that says nothing to outsiders.

A cursor holds the list's name and a place in its order, never a count, so a list may grow and
shrink between two pages: nothing comes twice, and nothing that stays is left out.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.model.api.resources import Page

T = TypeVar("T")
P = TypeVar("P", bound=Page[Any])
_LONGEST = 8000

Cursor = Annotated[
    str,
    Meta(
        max_length=_LONGEST,
        description="The `next` of the page before.",
        extra_json_schema={"format": "cursor"},
    ),
]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


def sealed(name: str, page: P) -> P:
    """Return a page whose `next` is a cursor.

    Args:
        name: The list's, which no other list has.
        page: Its `next` is a place in the list's order, as text.
    """
    if page.next is None:
        return page
    return msgspec.structs.replace(page, next=_seal(name, page.next))


def opened(name: str, cursor: str | None, kind: type[T]) -> T | None:
    """Return the place that a cursor holds; None for the beginning.

    Args:
        name: The list's.
        cursor: What was asked with.
        kind: Type of a place.

    Raises:
        BadRequest: It is no cursor of this list.
    """
    if cursor is None:
        return None
    try:
        return msgspec.convert(_place(name, cursor), kind, strict=False)
    except (ValueError, msgspec.ValidationError):  # of base64, of UTF-8, of the place
        raise BadRequest(
            "after is no place in this list: give the `next` of the page before, or leave it out",
            status=400,
            field="after",
        ) from None


def _place(name: str, cursor: str) -> str | None:
    """Return the place that a cursor holds; None if it is of another list, or made up."""
    text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    found, _, place = text.partition("\n")
    mine = found == name and "\x00" not in place and _seal(name, place) == cursor
    return place if mine else None


def _seal(name: str, place: str) -> str:
    return urlsafe_b64encode(f"{name}\n{place}".encode()).rstrip(b"=").decode()
