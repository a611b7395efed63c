"""Traces and timelines, clicked through on a real daemon, in a real browser."""

import os
import re
import signal
import socket
from pathlib import Path

import msgspec
import pytest

from pubsubflow.cli.daemon_process import child_daemon

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="see `make env`")
expect = pytest.importorskip("playwright.sync_api").expect
DAGS = Path(__file__).with_name("dags")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SHOTS = os.environ.get("PUBSUBFLOW_SCREENSHOTS")
"""A folder for pictures, for people; see docs/images/page."""


@pytest.fixture(scope="module")
def shop(api):
    """An order that led to two runs, one after the other, and a customer that led to none."""
    api.post("s3://shop/customers", rows=0)
    api.post("s3://shop/customers", rows=2)
    event = api.post("s3://shop/orders", rows=3)
    api.until("runs?dag=report&state=success", lambda found: found["items"])
    (adding,) = api("runs?dag=add_up")["items"]
    failed = api.start("load", flag="/nowhere", rows=2)
    return {"event": event, "run": adding["run_id"], "failed": failed}


def look(tab, name):
    """Check that what is shown is accessible in light, dark and on a phone, and take pictures."""
    found = axe.Axe().run(tab.page, options={"runOnly": RULES, "resultTypes": ["violations"]})
    assert [each["id"] for each in found.response["violations"]] == [], found.generate_report()
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        colours = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
        assert axe.Axe().run(tab.page, options=colours).violations_count == 0, (name, scheme)
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=f"{SHOTS}/{name}-{scheme}.png")
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size({"width": 320, "height": 640})
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
    if SHOTS:
        tab.screenshot(path=f"{SHOTS}/{name}-phone.png", full_page=True)
    tab.set_viewport_size({"width": 1280, "height": 800})


def test_a_trace_leads_from_an_event_to_what_followed_and_back(tab, shop, api):
    asked = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open(f"/ui/events/{shop['event']}?tab=trace")
    drawing = tab.get_by_role("region", name="Causes and effects")
    expect(drawing.get_by_role("link", name=re.compile("add_up"))).to_be_visible()
    expect(drawing.get_by_role("link", name=re.compile("report"))).to_be_visible()
    assert sum("/api/v1/" in each and "/stream" not in each for each in asked) <= 4
    effects = tab.get_by_role("list", name="Has led to")
    expect(effects).to_contain_text(re.compile(r"\d (ms|s) from the event to the run"))
    expect(effects).to_contain_text("task total of add_up")
    expect(tab.get_by_role("list", name="Because of")).to_contain_text("from outside (api)")
    look(tab, "trace")
    # By keys: from the run to its event, to the report, and back.
    drawing.focus()
    tab.keyboard.press("ArrowRight")
    expect(tab.locator(":focus")).to_contain_text("s3://shop/orders")
    drawing.get_by_role("link", name=re.compile("^add_up")).focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    expect(tab.locator(":focus")).to_contain_text("report")
    tab.keyboard.press("ArrowLeft")
    expect(tab.locator(":focus")).to_contain_text("s3://shop/totals")
    tab.keyboard.press("t")
    expect(tab.get_by_role("region", name="Runs and events by time")).to_be_visible()
    look(tab, "trace-time")
    tab.get_by_role("link", name=re.compile("Run of add_up, success")).first.click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run of add_up")
    expect(tab.get_by_role("list", name="Because of")).to_contain_text("s3://shop/customers")
    # Live: what follows appears while one looks.
    tab.open(f"/ui/events/{api.post('s3://shop/totals')}?tab=trace")
    expect(tab.get_by_role("list", name="Has led to")).to_contain_text("success")


def test_a_timeline_shows_attempts_and_instances(tab, shop, api):
    tab.open(f"/ui/runs/{shop['run']}?tab=timeline")
    drawing = tab.get_by_role("region", name="Tasks by time")
    expect(
        drawing.get_by_role("link", name=re.compile(r"part\.0, attempt 1: success"))
    ).to_be_visible()
    same = tab.get_by_role("list", name="Tasks by time, as a list")
    expect(same).to_contain_text(re.compile(r"queued for a worker [\d.]+ (ms|s)"))
    expect(same).to_contain_text("median")
    look(tab, "timeline")
    # Bars are clicked though they are narrow, and reached by keys; it zooms, and back.
    bar = drawing.get_by_role("link", name=re.compile("fetch, attempt 1"))
    assert bar.bounding_box()["width"] >= 8
    shown = tab.locator(".lanes .tools .faint").inner_text()
    drawing.focus()
    for _ in range(6):
        tab.keyboard.press("+")
    expect(tab.locator(".lanes .tools .faint")).not_to_have_text(shown)
    tab.keyboard.press("0")
    expect(tab.locator(".lanes .tools .faint")).to_have_text(shown)
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    expect(tab.locator(":focus")).to_have_class("hit")
    bar.click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("fetch")
    sleeping = api.start("sleeps", wait=False)
    tab.open(f"/ui/runs/{sleeping}?tab=timeline")
    expect(same).to_contain_text("waited")


def test_a_daemon_that_is_killed_and_started_is_followed_again(browse, api, tmp_path):
    """Nothing is loaded anew by hand, and what happened meanwhile is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path / "home"
    with child_daemon(DAGS, home=home, port=port) as url:
        tab = browse(at=url)
        tab.expected = "ERR_"  # the browser itself writes lost connections to its console
        api = type(api)(url)
        first = api.post("s3://shop/totals")
        api.until("runs?dag=report&state=success", lambda found: found["items"])
        tab.open("/ui/runs?dag=report")
        rows = tab.get_by_role("table", name="Runs").get_by_role("row")
        expect(rows).to_have_count(2)
        os.kill(msgspec.json.decode((home / "owner").read_bytes())["pid"], signal.SIGKILL)
        expect(tab.get_by_role("status").filter(has_text="No connection since")).to_be_visible()
    with child_daemon(DAGS, home=home, port=port) as url:
        again = api.post("s3://shop/totals")
        assert again != first
        expect(rows).to_have_count(3)
        expect(rows.nth(1)).to_contain_text("success")
        expect(tab.get_by_role("status").filter(has_text="No connection since")).to_have_count(0)
