"""The identity of datasets: one URI, written one way."""

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
