"""Checks of connection types, each against a server of its kind that the test runs."""

import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

from pubsubflow.errors import ConfigError
from pubsubflow.hooks import aws, http, slack
from pubsubflow.hooks.http import HttpFailed
from pubsubflow.model.connections import make_connection
from support.web_server import served

pytestmark = pytest.mark.anyio


async def test_slack_is_checked_without_a_message():
    seen = []

    async def api(request):
        seen.append((request.match_info["method"], request.headers["Authorization"]))
        if request.headers["Authorization"] != "Bearer xoxb-1":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        return web.json_response({"ok": True, "user": "psf", "team": "Acme"})

    async def webhook(request):
        if request.match_info["id"] != "good":
            return web.Response(status=404, text="no_service")
        return web.Response(status=400, text="no_text")

    routes = (web.post("/api/{method}", api), web.post("/services/{id}", webhook))
    async with served(*routes) as url:

        def made(**secrets):
            return make_connection("s", extra={"api_url": f"{url}/api"}, secrets=secrets)

        assert await slack.check(made(token="xoxb-1")) == "psf in Acme"
        with pytest.raises(HttpFailed, match=r"auth\.test: invalid_auth"):
            await slack.check(made(token="xoxb-2"))
        assert seen == [("auth.test", f"Bearer xoxb-{n}") for n in (1, 2)]
        hook = made(webhook_url=f"{url}/services/good")
        assert await slack.check(hook) == "the webhook exists"
        with pytest.raises(HttpFailed) as failure:
            await slack.check(made(webhook_url=f"{url}/services/gone"))
        # The address is the secret.
        assert "services/gone" not in str(failure.value)
        with pytest.raises(ConfigError, match="webhook_url, or token"):
            await slack.check(made())


async def test_http_names_the_path_to_check_where_there_is_no_page():
    async def health(_):
        return web.json_response({})

    async with served(web.get("/health", health)) as url:
        with pytest.raises(HttpFailed, match=r"answered 404: a server is there.*check_path"):
            await http.check(make_connection("h", uri=url))
        checked = await http.check(make_connection("h", uri=url, extra={"check_path": "/health"}))
        assert checked == f"GET {url}/health answered 200"


async def test_aws_says_whose_key_it_is_and_a_role_is_assumed():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = f"http://{':'.join(map(str, server.get_host_and_port()))}"
        extra = {"region": "eu-central-1", "access_key_id": "AKIA1", "endpoint_url": url}
        secrets = {"secret_access_key": "hush-hush"}
        made = make_connection("a", extra=extra, secrets=secrets)
        assert (await aws.check(made)).startswith("arn:aws:")
        role = "arn:aws:iam::123456789012:role/psf"
        made = make_connection("a", extra=extra | {"role_arn": role}, secrets=secrets)
        assert "assumed-role/psf/pubsubflow" in await aws.check(made)
    finally:
        server.stop()
