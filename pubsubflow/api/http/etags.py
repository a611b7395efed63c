"""ETags save pollers unchanged responses, and keep two writers from overwriting each other.

A response carries a strong ETag, a digest of its body, so `If-None-Match` is answered by 304 while
nothing has changed. For objects that people change, the ETag is `"<revision>.<digest>"`, and
`If-Match` compares the revision alone: a run that starts meanwhile must not make a pause fail. The
revision is checked under the lock under which the change is written; see
`pubsubflow.model.revisions`. Source: RFC 9110, §8.8.3 and §13.
"""

import re
from hashlib import blake2b

from aiohttp import web

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.responses import encode
from pubsubflow.api.http.shown import shown
from pubsubflow.model.revisions import Revisions, connection_revision

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_LIST = re.compile(rf"\s*(?:\*|,*\s*{_TAG}\s*(?:,\s*(?:{_TAG})?\s*)*)\s*")
_TAGS = re.compile(_TAG)
_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
}


def json_with_etag(
    request: web.Request, value: object, *, revision: str | None = None
) -> web.Response:
    """Return a response with what the principal may see of a value, in JSON, and its ETag.

    It is 304 if the client has it already.

    Args:
        request: May carry `If-None-Match`.
        value: The value.
        revision: The revision of the object, if people can change it; without a dot.

    Raises:
        BadRequest: `If-None-Match` is malformed.
    """
    body = encode(shown(value))
    digest = blake2b(body, digest_size=12).hexdigest()
    etag = f'"{digest}"' if revision is None else f'"{revision}.{digest}"'
    headers = {**_HEADERS, "ETag": etag}
    known = _read(request, "If-None-Match")
    if known is not None and ("*" in known or etag in [tag.removeprefix("W/") for tag in known]):
        del headers["Content-Type"]
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)


def expected_revisions(request: web.Request, *, may_create: bool = False) -> Revisions:
    """Return the revisions that `If-Match` allows a change to be made to; None for any.

    Both an ETag and a revision alone will do. A weak ETag matches none.

    Args:
        request: The request.
        may_create: `If-None-Match: *` allows the change only if there is none yet.

    Raises:
        BadRequest: `If-Match` is malformed.
    """
    tags = _read(request, "If-Match")
    if may_create and request.headers.get("If-None-Match", "").strip() == "*":
        return [connection_revision(None)]
    if tags is None or "*" in tags:
        return None
    return [tag.strip('"').partition(".")[0] for tag in tags if not tag.startswith("W/")]


def _read(request: web.Request, header: str) -> list[str] | None:
    """Return the entity tags in a header, or its `*`; None without that header."""
    if header not in request.headers:
        return None
    text = ",".join(request.headers.getall(header))
    if not _LIST.fullmatch(text):
        raise BadRequest(
            f'{header} takes ETags in quotes, such as "3-1", or *', status=400, field=header
        )
    return ["*"] if text.strip() == "*" else _TAGS.findall(text)
