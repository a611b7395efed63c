"""Dataset URIs in normal form, and patterns of them."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from pubsubflow.errors import DefinitionError

MAX_URI_CHARACTERS = 1500
MAX_URI_BYTES = 2500


@lru_cache(maxsize=8192)
def normalise_uri(uri: str) -> str:
    """Return the URI with lower-case scheme and host, no trailing slash and no fragment.

    Raises:
        DefinitionError: It is not a URI, holds white space, control characters, a password or a
            segment `.` or `..`, or has more than 1,500 characters or 2,500 bytes.
    """
    if not uri.strip():
        raise not_a_uri(uri)
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
    for segment in parts.path.split("/"):
        # A reader that resolves them finds another dataset than the one a pattern has let through.
        if unquote(segment) in {".", ".."}:
            raise DefinitionError(
                f"the URI {uri!r} has {segment!r} as a segment; write the path without it"
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


def not_a_uri(value: object) -> DefinitionError:
    """Return the error of a value that is not a URI at all."""
    return DefinitionError(f"a dataset needs a URI such as 's3://lake/orders', not {value!r}")


def normalise_pattern(pattern: str) -> str:
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
    """Return a pattern as a regular expression of Postgres, whose automata take linear time."""
    wild = {"**": ".*", "*": "[^/]*"}
    pieces = re.split(r"(\*\*|\*)", pattern)
    return f"^{''.join(wild.get(piece) or re.escape(piece) for piece in pieces)}$"


@lru_cache(maxsize=8192)
def matches(pattern: str, uri: str) -> bool:
    """Return whether a URI matches a pattern, in time linear in the URI's length.

    The holder of an emitter's token chooses the URI, and regular expressions of Python take
    exponential time for some. This is the simulation of an automaton: bit i of `states` says that
    the first i parts of the pattern match what was read.
    """
    automaton = _automaton(pattern)
    if not uri.startswith(automaton.prefix):
        return False
    states, stars, within_segment = 1, automaton.stars, automaton.within_segment
    states |= (states & stars) << 1
    for character in uri:
        kept = states & stars
        if character == "/":
            kept &= ~within_segment
        states = kept | (states & automaton.literals.get(character, 0)) << 1
        states |= (states & stars) << 1
        if not states:
            return False
    return bool(states >> automaton.length)


class _Automaton(NamedTuple):
    """A pattern as bit sets over its parts: characters, `*` and `**`.

    Attributes:
        prefix: What the pattern begins with, up to its first `*`.
        length: Number of parts.
        literals: The places of each character.
        stars: The places of `*` and `**`.
        within_segment: The places of `*`.
    """

    prefix: str
    length: int
    literals: dict[str, int]
    stars: int
    within_segment: int


@lru_cache(maxsize=4096)
def _automaton(pattern: str) -> _Automaton:
    # Stars side by side match what the widest of them matches, so none follows another.
    parts = [
        ("**" if "**" in run else run) if run[0] == "*" else run
        for run in re.findall(r"\*+|[^*]", pattern)
    ]
    literals: dict[str, int] = {}
    stars = within_segment = 0
    for place, part in enumerate(parts):
        if part[0] == "*":
            stars |= 1 << place
            within_segment |= (part == "*") << place
        else:
            literals[part] = literals.get(part, 0) | 1 << place
    return _Automaton(pattern.split("*", 1)[0], len(parts), literals, stars, within_segment)
