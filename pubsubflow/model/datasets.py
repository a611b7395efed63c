"""Dataset URIs in normal form, and patterns of them."""

import re
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from pubsubflow.errors import DefinitionError

MAX_URI_CHARACTERS = 1500
MAX_URI_BYTES = 2500


def normalise_uri(uri: object) -> str:
    """Return the URI with lower-case scheme and host, no trailing slash and no fragment.

    Raises:
        DefinitionError: It is not a URI, holds white space, control characters or a password, or
            has more than 1,500 characters or 2,500 bytes.
    """
    if not isinstance(uri, str) or not uri.strip():
        raise DefinitionError(f"a dataset needs a URI such as 's3://lake/orders', not {uri!r}")
    return _normalised(uri)


@lru_cache(maxsize=8192)
def _normalised(uri: str) -> str:
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
    # User names and paths are case-sensitive, hosts are not.
    identity = _compose(parts, user + at + host.lower())
    longest = max(len(uri), len(identity))
    if longest > MAX_URI_CHARACTERS:
        raise DefinitionError(
            f"the URI {uri[:60]!r}… has {longest} characters; at most {MAX_URI_CHARACTERS} fit"
        )
    if len(identity.encode()) > MAX_URI_BYTES:
        raise DefinitionError(
            f"the URI {uri[:60]!r}… takes more than {MAX_URI_BYTES} bytes; write it in ASCII"
        )
    return identity


def _compose(parts: SplitResult, authority: str) -> str:
    """Compose a URI (RFC 3986 §5.3): `x:/a` and `x:///a` are the same one."""
    # urllib's own function differs between versions of Python, and this is an identity.
    slashes = "//" if authority or parts.path.startswith("/") else ""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}:{slashes}{authority}{parts.path.rstrip('/')}{query}"


def normalise_pattern(pattern: object) -> str:
    """Return a pattern of URIs: `*` stands for a part of one segment, `**` for any number of them.

    Raises:
        DefinitionError: It is not a pattern of URIs.
    """
    normal = normalise_uri(pattern)
    if "*" not in normal:
        raise DefinitionError(f"the pattern {normal!r} holds no `*`; use Dataset({normal!r})")
    return normal


@lru_cache(maxsize=4096)
def pattern_expression(pattern: str) -> str:
    """Return a pattern as a regular expression, valid for both Python and Postgres."""
    wild = {"**": ".*", "*": "[^/]*"}
    pieces = re.split(r"(\*\*|\*)", pattern)
    return f"^{''.join(wild.get(piece) or re.escape(piece) for piece in pieces)}$"


def matches(pattern: str, uri: str) -> bool:
    """Return whether a URI matches a pattern."""
    return re.match(pattern_expression(pattern), uri) is not None
