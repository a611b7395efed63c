"""Errors of requests: what the machine runs short of is worth a retry."""

import errno

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from pubsubflow.api.http.problems import problem_middleware
from pubsubflow.errors import ConfigError

pytestmark = pytest.mark.anyio


async def answer(error: Exception) -> web.Response:
    async def handler(_: web.Request) -> web.StreamResponse:
        raise error

    return await problem_middleware(make_mocked_request("GET", "/api/v1/runs"), handler)


def caused(code: int) -> ConfigError:
    error = ConfigError("the key file cannot be read")
    error.__cause__ = OSError(code, "no more")
    return error


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.EMFILE, "open files"),
        (errno.ENFILE, "open files"),
        (errno.ENOSPC, "disk space"),
        (errno.ENOMEM, "memory"),
    ],
)
@pytest.mark.parametrize("make", [lambda code: OSError(code, "no more"), caused])
async def test_a_shortage_of_the_machine_is_503(code, what, make):
    response = await answer(make(code))
    assert response.status == 503
    assert response.headers["Retry-After"]
    assert f"no {what} left" in response.body.decode()


@pytest.mark.parametrize("error", [caused(errno.EACCES), ValueError("a mistake of ours")])
async def test_any_other_error_is_500(error):
    assert (await answer(error)).status == 500
