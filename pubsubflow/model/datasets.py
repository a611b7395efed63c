"""The identity of datasets: one URI, written one way."""

import re
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

from pubsubflow.errors import DefinitionError

MAX_URI_CHARACTERS = 1500


def normalise_uri(uri: object) -> str:
    """Return the URI with lower-case scheme and host, no trailing slash and no fragment.

    Raises:
        DefinitionError: It is no URI, holds white space or control characters, a password, or
            more than 1,500 characters.
    """
    if not isinstance(uri, str) or not uri.strip():
        raise DefinitionError(f"a dataset needs a URI such as 's3://lake/orders', not {uri!r}")
    if len(uri) > MAX_URI_CHARACTERS:
        raise DefinitionError(
            f"the URI {uri[:60]!r}… has {len(uri)} characters; at most {MAX_URI_CHARACTERS} fit"
        )
    if any(character.isspace() or not character.isprintable() for character in uri):
        raise DefinitionError(f"the URI {uri!r} holds white space; write it percent-encoded")
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise DefinitionError(f"the URI {uri!r} is malformed: {error}") from error
    if not parts.scheme or not (parts.netloc or parts.path.strip("/")):
        raise DefinitionError(
            f"the URI {uri!r} needs a scheme and a name, as in 's3://lake/orders'"
        )
    user, at, host = parts.netloc.rpartition("@")
    if ":" in user:
        raise DefinitionError(
            f"the URI of host {host!r} holds a password; name the dataset without it"
        )
    return urlunsplit(
        (parts.scheme.lower(), user + at + host.lower(), parts.path.rstrip("/"), parts.query, "")
    )


def normalise_pattern(pattern: object) -> str:
    """Return a pattern of URIs: `*` stands for a part of one segment, `**` for any number of them.

    Raises:
        DefinitionError: It is no pattern of a URI.
    """
    normal = normalise_uri(pattern)
    if "*" not in normal:
        raise DefinitionError(f"the pattern {normal!r} holds no `*`; use Dataset({normal!r})")
    return normal


@lru_cache(maxsize=4096)
def pattern_expression(pattern: str) -> str:
    """Return the regular expression that a pattern stands for; the same for Python and Postgres."""
    escaped = (re.escape(piece) for piece in re.split(r"(\*\*|\*)", pattern))
    translated = ({r"\*\*": ".*", r"\*": "[^/]*"}.get(piece, piece) for piece in escaped)
    return f"^{''.join(translated)}$"


def matches(pattern: str, uri: str) -> bool:
    """Return whether a URI matches a pattern."""
    return re.match(pattern_expression(pattern), uri) is not None
