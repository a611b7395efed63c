"""Digests of the elements that a DAG file maps a task over, by which an instance finds its own."""

from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2s
from pathlib import PurePath
from uuid import UUID

_DIGEST_BYTES = 6
_CHARACTERS = 2 * _DIGEST_BYTES
_MOST_ELEMENTS = 1000
_WHOLE = "="
_PLAIN = str | bytes | int | float | Decimal | date | time | timedelta | UUID | PurePath | Enum


def digest_elements(values: Sequence[object]) -> str | None:
    """Return the digests of elements, in their order; one of them all for more than 1,000.

    Returns:
        None if an element is an object of which nothing is known that stays the same.
    """
    written = [_write(value) for value in values]
    texts = [text for text in written if text is not None]
    if len(texts) < len(written):
        return None
    if len(texts) > _MOST_ELEMENTS:
        return _WHOLE + _digest(repr(texts))
    return "".join(map(_digest, texts))


def same_elements(one: str | None, other: str | None) -> bool:
    """Return whether two digests are of the same elements, in whatever order if that is known."""
    if one is None or other is None or one == other:
        return True
    return _WHOLE not in one[:1] + other[:1] and sorted(_split(one)) == sorted(_split(other))


def element_order(wanted: str | None, made: str | None) -> list[int] | None:
    """Return where the wanted elements stand among those that were made; None where they should.

    Args:
        wanted: The digests of a run's version.
        made: The digests of what its file makes now; of the same elements.
    """
    if wanted is None or made is None or wanted == made:
        return None
    places: dict[str, list[int]] = {}
    for place, digest in enumerate(_split(made)):
        places.setdefault(digest, []).append(place)
    return [places[digest].pop(0) for digest in _split(wanted)]


def _split(digests: str) -> list[str]:
    return [digests[at : at + _CHARACTERS] for at in range(0, len(digests), _CHARACTERS)]


def _digest(text: str) -> str:
    data = text.encode(errors="surrogatepass")
    return blake2s(data, digest_size=_DIGEST_BYTES).hexdigest()


def _write(value: object) -> str | None:
    """Return a text that equal values share, in every process; None for an unknown object."""
    if value is None or isinstance(value, _PLAIN):
        return f"{type(value).__qualname__} {value!r}"
    if isinstance(value, Mapping):
        pairs = [(_write(key), _write(item)) for key, item in value.items()]
        if any(key is None or item is None for key, item in pairs):
            return None
        return f"dict {sorted(pairs, key=repr)}"
    if isinstance(value, list | tuple | set | frozenset):
        items = [_write(item) for item in value]
        if None in items:
            return None
        return f"{'set' if isinstance(value, set | frozenset) else 'list'} " + repr(
            sorted(map(str, items)) if isinstance(value, set | frozenset) else items
        )
    return None
