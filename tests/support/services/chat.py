"""Stand-ins of Slack, PagerDuty, Datadog and Jira."""

import base64
import re

SLACK_TOKEN = "xoxb-sesame"
SLACK_HOOK = "/services/T00000000/B00000000/sesame"
PAGERDUTY_KEY = "0123456789abcdef0123456789abcdef"
DATADOG_KEY = "datadog-sesame"
JIRA_PEOPLE = ("ann@example.org", "jira-sesame")


def slack(request):
    """https://docs.slack.dev/reference/methods/chat.postMessage"""
    assert (request.method, request.path) == ("POST", "/api/chat.postMessage")
    if request.headers.get("authorization") != f"Bearer {SLACK_TOKEN}":
        return 200, {"ok": False, "error": "invalid_auth"}
    body = request.json()
    assert body["channel"]
    assert {"text", "blocks", "attachments"} & body.keys()
    message = {"type": "message", "text": body.get("text", ""), "ts": "1503435956.000247"}
    return 200, {"ok": True, "channel": "C024BE91L", "ts": message["ts"], "message": message}


def slack_hooks(request):
    """https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""
    assert (request.method, request.path) == ("POST", SLACK_HOOK)
    assert request.json().get("text") or request.json().get("blocks")
    return 200, "ok"


def pagerduty(request):
    """https://developer.pagerduty.com/docs/send-alert-event"""
    assert (request.method, request.path) == ("POST", "/v2/enqueue")
    body = request.json()
    assert body["routing_key"] == PAGERDUTY_KEY
    assert body["event_action"] in ("trigger", "acknowledge", "resolve")
    if body["event_action"] == "trigger":
        payload = body["payload"]
        assert payload["summary"]
        assert payload["source"]
        assert payload["severity"] in ("critical", "error", "warning", "info")
    return 202, {
        "status": "success",
        "message": "Event processed",
        "dedup_key": body.get("dedup_key", "srv01/HTTP"),
    }


def datadog(request):
    """https://docs.datadoghq.com/api/latest/metrics, .../events"""
    key = request.headers.get("dd-api-key") or request.query.get("api_key")
    if key != DATADOG_KEY:
        return 403, {"errors": ["Forbidden"]}
    if (request.method, request.path) == ("POST", "/api/v1/series"):
        (series,) = request.json()["series"]
        assert re.fullmatch(r"[A-Za-z][\w.]*", series["metric"])
        for moment, value in series["points"]:
            assert moment > 1_700_000_000
            assert isinstance(value[0] if isinstance(value, list) else value, int | float)
        assert series.get("type", "gauge") in ("gauge", "rate", "count")
        return 202, {"status": "ok"}
    assert (request.method, request.path) == ("POST", "/api/v1/events")
    event = request.json()
    assert event["title"]
    assert event["text"]
    assert event.get("alert_type", "info") in ("error", "warning", "info", "success")
    return 202, {"status": "ok", "event": {"id": 1, **event}}


def jira(request):
    """https://developer.atlassian.com/cloud/jira/platform/rest/v2/api-group-issues"""
    given = base64.b64encode(":".join(JIRA_PEOPLE).encode()).decode()
    if request.headers.get("authorization") != f"Basic {given}":
        return 401, {"errorMessages": ["You are not authenticated."]}
    assert (request.method, request.path) == ("POST", "/rest/api/2/issue")
    fields = request.json()["fields"]
    assert fields["project"]["key"] == "OPS"
    assert fields["summary"]
    assert fields["issuetype"]["name"]
    here = f"https://{request.host}/rest/api/2/issue/10000"
    return 201, {"id": "10000", "key": "OPS-24", "self": here}
