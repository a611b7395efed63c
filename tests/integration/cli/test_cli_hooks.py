"""Webhooks of a DAG file: listed, and checked without a daemon."""

import json
import urllib.request


def send(url, body):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_webhooks_are_listed_with_counts_of_their_requests(psf, daemon_url):
    made = send(f"{daemon_url}/hooks/letters", {"from": "somebody"})
    assert send(f"{daemon_url}/hooks/letters", {"from": "nobody"})["status"] == "filtered"
    listed = {hook["name"]: hook for hook in psf("hooks", "list", "--json").json}
    letters = listed["letters"]
    assert (letters["accepted"], letters["filtered"], letters["file"]) == (1, 1, "doors.py")
    assert "NOBODY_HAS_SET_THIS" in listed["hub"]["trouble"]
    shown = psf("hooks", "list").out
    assert "unverified" in shown
    assert "/hooks/letters" in shown
    (event,) = psf("datasets", "events", "s3://lake/letters", "--json").json
    assert (event["event_id"], event["source"]) == (made["event_id"], "webhook:letters")


def test_an_error_in_a_webhook_names_its_line(anywhere, tmp_path):
    (tmp_path / "doors.py").write_text(
        "from pubsubflow.webhooks import *\n"
        "Webhook('a', dataset='s3://lake/a', verify=GitHub(''))\n"
    )
    checked = anywhere("dags", "check", tmp_path)
    assert checked.code == 1
    assert "doors.py:2: GitHub: a secret is empty" in checked.out + checked.err
