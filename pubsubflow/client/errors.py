"""Errors of the client, made of the problem documents of the server."""

from http import HTTPStatus

import msgspec

from pubsubflow.errors import InvalidInput, PubsubflowError, Unavailable
from pubsubflow.model.api.resources import Problem

RETRYABLE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Statuses after which a request may be sent again later."""

_CONFLICTS = frozenset(
    {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.FAILED_DEPENDENCY}
)


class RequestRefused(InvalidInput):
    """The server does not know the object, or does not accept the request.

    Args:
        problem: The server's problem document.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class RequestFailed(PubsubflowError):  # noqa: N818 - the server's answer, not an error of ours
    """The server could not do what was requested, for example because the run has ended.

    Args:
        problem: The server's problem document.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def error_of(url: str, status: int, reason: str, body: bytes) -> PubsubflowError:
    """Return the error of a response.

    Args:
        url: The server.
        status: HTTP status.
        reason: The reason phrase of the status.
        body: A problem document, if the server is pubsubflow.
    """
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return foreign_answer(url, status, reason)
    if status in RETRYABLE:
        return Unavailable(f"{url} cannot answer now: {problem.detail}")
    # The request was valid, and the state of the object stands against it: nothing to correct.
    if status in _CONFLICTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestFailed(problem)
    return RequestRefused(problem)


def foreign_answer(url: str, status: int, reason: str) -> Unavailable:
    """Return the error of a response that does not have the form of the API's."""
    return Unavailable(
        f"{url} answers {status} {reason} in an unknown format: it is not a pubsubflow server, has "
        "another version, or is behind a proxy that answers itself"
    )
