"""What a server answers when it does not do what it is asked."""

from http import HTTPStatus

import msgspec

from pubsubflow.errors import InvalidInput, PubsubflowError, Unavailable
from pubsubflow.model.api.resources import Problem

LATER = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Statuses that ask to come again later."""

_LATE = frozenset({HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED})


class Refused(InvalidInput):
    """The server knows no such thing, or cannot accept what was asked.

    Args:
        problem: Its answer.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Failed(PubsubflowError):  # noqa: N818 - an answer, not a fault of ours
    """The server could not do what was asked, for example because the run has ended.

    Args:
        problem: Its answer.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refusal(url: str, status: int, reason: str, body: bytes) -> PubsubflowError:
    """Return the error that an answer stands for.

    Args:
        url: Who answers.
        status: HTTP status.
        reason: What stands beside it.
        body: A problem document, if it is pubsubflow that answers.
    """
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return stranger(url, status, reason)
    if status in LATER:
        return Unavailable(f"{url} cannot answer now: {problem.detail}")
    if status in _LATE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Failed(problem)
    return Refused(problem)


def stranger(url: str, status: int, reason: str) -> Unavailable:
    """Return the error that an answer stands for which is none of ours."""
    return Unavailable(
        f"{url} answers {status} {reason} in a way of its own: it is no pubsubflow server, one of "
        "another version, or something stands in between"
    )
