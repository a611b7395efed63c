"""The page as it is served: what may be kept, what a browser may do, and where it is missing."""

import json
import os

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pubsubflow.api.page.files import PageFiles
from pubsubflow.api.page.routes import POLICY, PageRoutes

pytestmark = pytest.mark.anyio
HTML = {"Accept": "text/html,*/*"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "main-ABC.js").write_text("main()")
    (tmp_path / "index.html").write_text("<!doctype html>one")
    (tmp_path / "icon.svg").write_text("<svg/>")
    (tmp_path / "digest.txt").write_text("1")
    return tmp_path


@pytest.fixture
async def client(folder):
    app = web.Application()
    app.add_routes(route.definition() for route in PageRoutes(PageFiles(folder)).routes())
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


async def get(client, path, status=200, **headers):
    headers = {"Accept-Encoding": "identity", **headers}
    options = {"headers": headers, "allow_redirects": False}
    async with client.get(path, **options) as response:
        assert response.status == status
        return response, await response.text()


async def test_every_view_has_the_page_and_its_policy(client):
    for path in ("/ui/", "/ui/runs/0198?tab=why&tab=2", "/ui/dags/a%2Fb", "/ui/index.html"):
        response, text = await get(client, path)
        assert text == "<!doctype html>one"
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Content-Security-Policy"] == POLICY
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-cache"
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    async with client.head("/ui/") as response:
        assert response.status == 200


async def test_what_a_view_needs_beside_is_named_with_the_page(client, folder):
    views = [
        {"path": "^(now)?$", "files": ["assets/now.js", "assets/bars.js"]},
        {"path": "^dags/", "tab": "grid", "files": ["assets/grid.js"]},
    ]
    (folder / "early.json").write_text(json.dumps(views))
    for path, names in (
        ("/ui/", ["bars", "now"]),
        ("/ui/now?tab=grid", ["bars", "now"]),
        ("/ui/dags/a?tab=grid", ["grid"]),
        ("/ui/dags/a", []),
        ("/ui/assets/main-ABC.js", []),
        ("/ui/icon.svg?tab=grid", []),
    ):
        response, _ = await get(client, path)
        links = [f"</ui/assets/{name}.js>; rel=modulepreload" for name in names]
        assert response.headers.get("Link", "") == ", ".join(links), path


async def test_assets_are_kept_for_ever_and_the_page_is_checked(client):
    script, _ = await get(client, "/ui/assets/main-ABC.js")
    assert script.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
    icon, _ = await get(client, "/ui/icon.svg")
    assert icon.headers["Content-Type"] == "image/svg+xml"
    page, _ = await get(client, "/ui/")
    tag = page.headers["ETag"]
    _, text = await get(client, "/ui/dags", status=304, **{"If-None-Match": f'"x", W/{tag}'})
    assert text == ""
    await get(client, "/ui/assets/main-OLD.js", status=404)


async def test_files_are_packed_for_clients_that_take_it(client):
    response, _ = await get(client, "/ui/icon.svg")
    assert "Content-Encoding" not in response.headers
    async with client.get("/ui/icon.svg", headers={"Accept-Encoding": "gzip, br"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert (await response.read())[:2] == b"\x1f\x8b"
        assert response.headers["Vary"] == "Accept-Encoding"


async def test_a_page_that_is_built_anew_is_served_at_once(client, folder):
    await get(client, "/ui/")
    (folder / "index.html").write_text("<!doctype html>two")
    (folder / "assets" / "main-DEF.js").write_text("main()")
    stamp = folder / "digest.txt"
    os.utime(stamp, ns=(1, stamp.stat().st_mtime_ns + 1))
    _, text = await get(client, "/ui/")
    assert text == "<!doctype html>two"
    await get(client, "/ui/assets/main-DEF.js")


async def test_without_a_page_it_says_how_to_get_one(client, folder):
    (folder / "digest.txt").unlink()
    _, text = await get(client, "/ui/", status=404)
    assert "make page" in text
    assert "It was tried" not in text
    (folder / "missing.txt").write_text("npm <ci> failed\nabc\n")
    _, text = await get(client, "/ui/runs", status=404)
    assert "It was tried: npm &lt;ci&gt; failed" in text
    assert "abc" not in text


async def test_browsers_are_led_to_the_page_and_programs_are_not(client):
    for path in ("/", "/ui"):
        response, _ = await get(client, path, status=302, **HTML)
        assert response.headers["Location"] == "/ui/"
        await get(client, path, status=404, Accept="*/*")


async def test_nothing_beside_the_page_is_served(client, folder):
    (folder.parent / "secret.txt").write_text("secret")
    for path in ("/ui/../secret.txt", "/ui/%2e%2e/secret.txt", "/ui/..%2fsecret.txt"):
        plain = {"Accept-Encoding": "identity"}
        async with client.get(path, allow_redirects=False, headers=plain) as response:
            assert b"secret" not in await response.read()
