"""What strangers sent is shown by commands, and does not reach the terminal as it was sent."""

import urllib.error
import urllib.request

import pytest


def test_the_audit_log_shows_escape_sequences_of_strangers(psf, daemon_url):
    path = "/api/v1/tokens/%1b%5b2J%1b%5d0;title%07%c2%9b31m"
    request = urllib.request.Request(daemon_url + path, method="DELETE")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request)
    for options in ({"FORCE_COLOR": "1", "COLUMNS": "300", "TERM": "xterm"}, {}):
        listed = psf("audit", "list", **options)
        assert "title" in listed.out
        for sequence in ("\x1b[2J", "\x1b]", "\x07", "\x9b"):
            assert sequence not in listed.out
