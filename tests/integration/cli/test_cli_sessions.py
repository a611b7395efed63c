"""The page from the command line: a link that signs a browser in, and the sessions of browsers."""

import json
import urllib.request
from http.cookiejar import CookieJar
from urllib.error import HTTPError

import pytest


def send(opener, url, path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, method=method)
    request.add_header("Content-Type", "application/json")
    request.add_header("Origin", url)
    with opener.open(request, timeout=30) as response:
        return json.loads(response.read() or b"null")


def test_a_browser_is_signed_in_by_a_link_and_out_by_a_command(psf, daemon_url):
    shown = psf("open", "--print", "--as", "ann")
    assert shown.out.startswith(f"{daemon_url}/ui/#sign-in=psf_")
    assert "signs local:ann in, once, until" in shown.err
    opened = psf("open", "--as", "bob", "--json").json
    assert opened["name"] == "local:bob"
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    code = opened["url"].partition("#sign-in=")[2]
    assert send(opener, daemon_url, "/api/v1/session", {"code": code})["name"] == "local:bob"
    with pytest.raises(HTTPError) as refused:
        send(opener, daemon_url, "/api/v1/session", {"code": code})
    assert refused.value.code == 401
    refused.value.close()
    send(opener, daemon_url, "/api/v1/session/links", {})
    (session,) = [each for each in psf("sessions", "list", "--json").json if "bob" in each["name"]]
    assert session["agent"].startswith("Python-urllib")
    listed = psf("sessions", "list").out
    assert "local:bob" in listed
    assert "127.0.0.1" in listed
    assert psf("sessions", "revoke", session["id"]).out == "local:bob is signed out there\n"
    assert send(opener, daemon_url, "/api/v1/me")["name"] == "local"  # no token is needed here
    entries = psf("audit", "list", "--by", "local:bob", "--json").json
    assert [each["action"] for each in entries] == [
        "POST /api/v1/session/links",
        "POST /api/v1/session",
    ]
    assert psf("open", "--as", "a b").code == 2
