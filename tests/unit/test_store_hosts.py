"""Several hosts in a URL of Postgres."""

import pytest

from pubsubflow.store.servers.hosts import place, split_hosts


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgres://u:p@a:1,b:2/d?x=1", ("postgres://u:p@a:1/d?x=1", "postgres://u:p@b:2/d?x=1")),
        ("postgres://u@a,[::1]:2/d", ("postgres://u@a/d", "postgres://u@[::1]:2/d")),
        ("postgres://u:p%2C@a/d", ("postgres://u:p%2C@a/d",)),
        ("postgres://u:a,b@c/d", ("postgres://u:a,b@c/d",)),  # a comma of the password
        ("postgres://u@/d?host=a,b&port=1,2", ("a:1", "b:2")),
        ("postgres://u@/d?host=a,b&port=1", ("a:1", "b:1")),
        ("postgres://u@/d?host=a,b", ("a", "b")),
        ("postgres://u@/d?host=/run/x&port=1", ("postgres://u@/d?host=/run/x&port=1",)),
        ("postgres://[a", ("postgres://[a",)),
        ("", ("",)),
    ],
)
def test_each_host_has_a_url(url, hosts):
    found = split_hosts(url)
    assert (found if hosts[0].startswith("post") or not url else tuple(map(place, found))) == hosts


def test_a_place_shows_no_password():
    assert place("postgres://u:secret@a:1/d") == "a:1"
