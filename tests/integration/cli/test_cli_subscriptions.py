"""Subscriptions on a running daemon, with a receiver of their deliveries."""

import http.server
import threading
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from pubsubflow.cli.daemon_process import child_daemon

DAGS = Path(__file__).with_name("dags")


@pytest.fixture
def receiver():
    """A server that answers by its path's status, and what it got."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(({name.lower(): text for name, text in self.headers.items()}, body))
            self.send_response(int(self.path[1:]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_subscription_is_created_tested_paused_and_deleted(psf, receiver):
    url, got = receiver
    made = psf("subscriptions", "create", f"{url}/200", "--dag", "nobodys", "--json").json
    name = made["id"]
    assert psf("subscriptions", "test", name).out.startswith("accepted: 200")
    ((headers, body),) = got
    Webhook(made["secret"]).verify(body, headers)
    assert psf("subscriptions", "pause", name).out == f"subscription {name} is paused\n"
    assert psf("subscriptions", "delete", name, "--json").json["state"] == "paused"
    assert psf("subscriptions", "list").out == "no subscriptions\n"


def test_a_test_event_that_is_not_accepted_fails(psf, receiver):
    url, _ = receiver
    shown = psf("subscriptions", "create", f"{url}/503", "--dag", "nobodys").out
    assert "whsec_" in shown
    tested = psf("subscriptions", "test", shown.split()[1])
    assert tested.code == 1
    assert "not accepted: 503" in tested.out


def test_with_the_first_token_private_addresses_are_refused_also_of_older_subscriptions(
    tmp_path, fresh_home, receiver, anywhere
):
    url, got = receiver
    environ = {"PUBSUBFLOW_HOME": str(tmp_path / "home")}
    with child_daemon(DAGS, home=fresh_home(tmp_path / "home"), port=0):
        made = anywhere("subscriptions", "create", f"{url}/200", "--json", **environ).json
        assert anywhere("subscriptions", "test", made["id"], **environ).code == 0
        anywhere("tokens", "create", "ann", "--role", "operator", **environ)
        tested = anywhere("subscriptions", "test", made["id"], **environ)
        assert (tested.code, len(got)) == (1, 1)
        assert "allow_private is off" in tested.out
        refused = anywhere("subscriptions", "create", f"{url}/200", **environ)
        assert "allow_private" in refused.err
