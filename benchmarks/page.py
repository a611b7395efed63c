"""The page on a full store: first useful paint of each view, frames, news to pixel, sizes."""

import asyncio
import gzip
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from benchmarks.figures import figure, spread
from benchmarks.page_filling import fill
from benchmarks.stack import Stack
from pubsubflow.api.page.files import STATIC

DAGS = Path(__file__).parent / "dags"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage")
VIEWPORT: ViewportSize = {"width": 1280, "height": 800}
ROUNDS = 3
NEWS = 10
FIRST_VIEW, ALL = 120_000, 350_000
SLOW_LINE = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1_600_000 / 8,
    "uploadThroughput": 750_000 / 8,
}
# What is waited for is in the document, and two frames later it has been painted.
WATCH = """
window.useful = undefined;
const look = () => {
  if (window.useful === undefined && document.querySelector(WANTED)) {
    window.useful = null;
    const painted = () => { window.useful = performance.now(); };
    requestAnimationFrame(() => requestAnimationFrame(painted));
  }
};
new MutationObserver(look).observe(document, { childList: true, subtree: true });
"""
FRAMES = """async (selector) => {
  const box = document.querySelector(selector) ?? document.scrollingElement;
  const deltas = [];
  let last = performance.now();
  for (let step = 0; step < 90; step++) {
    box.scrollTop += 60;
    await new Promise((done) => requestAnimationFrame(done));
    const now = performance.now();
    deltas.push(now - last);
    last = now;
  }
  return deltas;
}"""
SIZES = """() => performance.getEntriesByType('resource')
  .filter((each) => each.name.endsWith('.js'))
  .reduce((sum, each) => sum + each.encodedBodySize, 0)"""
SEEN = """
window.seen = {};
new MutationObserver(() => {
  for (const link of document.querySelectorAll('tbody tr a[href*="/ui/runs/"]')) {
    window.seen[link.getAttribute('href').split('/').pop()] ??= Date.now();
  }
}).observe(document, { childList: true, subtree: true });
"""


def views(runs: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return the address of each view, and what of it is useful, by name."""
    part = quote("bench://lake/part-00500", safe="")
    return {
        "now": ("/ui/", ".counters"),
        "runs": ("/ui/runs", "tbody tr"),
        "dags": ("/ui/dags", "tbody tr"),
        "dags searched": ("/ui/dags?text=fill-09", "tbody tr"),
        "why": ("/ui/dags/fill-00042", ".panel h2"),
        "grid 500 x 50": ("/ui/dags/wide?tab=grid&fold=none", ".grid-row"),
        "graph": ("/ui/dags/fill-00042?tab=graph", ".node"),
        "run": (f"/ui/runs/{runs['wide']}", "tbody tr"),
        "mapped 10,000": (f"/ui/runs/{runs['mapped']}?state=failed", "tbody tr"),
        "log of 1,000,000 lines": (f"/ui/runs/{runs['wide']}/tasks/stage_0.step_0", ".output .l"),
        "events": ("/ui/events", "tbody tr"),
        "datasets": ("/ui/datasets", "tbody tr"),
        "dataset graph": (f"/ui/datasets/{part}?tab=graph&up=9&down=9", ".node"),
        "waits": ("/ui/waits", "main h1"),
        "letters": ("/ui/letters", "main h1"),
        "system": ("/ui/system", "tbody tr"),
    }


def _paint(context: BrowserContext, url: str, wanted: str, *, slow: bool = False) -> float:
    """Return the milliseconds until a view is useful."""
    page = context.new_page()
    try:
        if slow:
            session = context.new_cdp_session(page)
            session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
            session.send("Network.enable")
            session.send("Network.emulateNetworkConditions", SLOW_LINE)
        page.add_init_script(f"const WANTED = {json.dumps(wanted)};{WATCH}")
        page.goto(url, wait_until="commit")
        end = time.monotonic() + 60
        while not (painted := page.evaluate("window.useful")):
            if time.monotonic() > end:
                raise TimeoutError(f"{url} shows no {wanted}")
            page.wait_for_timeout(10)
        return float(painted)
    finally:
        page.close()


def _frames(context: BrowserContext, url: str, wanted: str, box: str) -> list[float]:
    page = context.new_page()
    try:
        page.goto(url)
        page.locator(wanted).first.wait_for()
        found: list[float] = page.evaluate(FRAMES, box)
        return found
    finally:
        page.close()


def _news(page: Page, stack: Stack) -> list[float]:
    """Return the milliseconds from the commit of runs to their rows on the screen."""
    page.add_init_script(SEEN)
    page.goto(f"{stack.url}/ui/runs")
    page.locator("tbody tr").first.wait_for()
    found = []
    for _ in range(NEWS):
        run_id = stack.trigger("pair_async_up")
        made = datetime.fromisoformat(stack.get(f"/runs/{run_id}")["created_at"]).timestamp() * 1000
        end = time.monotonic() + 20
        while (seen := page.evaluate(f"window.seen['{run_id}']")) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"run {run_id} is not shown")
            page.wait_for_timeout(10)
        found.append(seen - made)
    return found


def run() -> list[dict[str, Any]]:
    """Measure the page; return its figures."""
    with Stack(DAGS) as stack:
        # Before the driver, whose loop is that of the thread.
        runs = asyncio.run(fill(stack.dsn))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
            figures = [*_paints(browser, stack, runs), *_others(browser, stack, runs)]
            browser.close()
    figures.append(figure("all JavaScript, gzip", _all_sizes(), "B", target=ALL))
    return figures


def _paints(browser: Browser, stack: Stack, runs: dict[str, str]) -> Iterator[dict[str, Any]]:
    for name, (path, wanted) in views(runs).items():
        for slow, target in ((False, 1000), (True, 2500)):
            painted = []
            for _ in range(ROUNDS):
                # A new context has nothing in its cache: the first visit counts.
                context = browser.new_context(viewport=VIEWPORT)
                painted.append(_paint(context, stack.url + path, wanted, slow=slow))
                context.close()
            title = f"{name}, first useful paint{', CPU / 4, 1.6 Mbit/s' if slow else ''}"
            yield figure(title, round(statistics.median(painted)), "ms", target=target)


def _others(browser: Browser, stack: Stack, runs: dict[str, str]) -> Iterator[dict[str, Any]]:
    context = browser.new_context(viewport=VIEWPORT)
    for name, box in (("grid 500 x 50", ".grid-box"), ("dags", "html")):
        path, wanted = views(runs)[name]
        deltas = sorted(_frames(context, stack.url + path, wanted, box))
        p95 = round(deltas[int(len(deltas) * 0.95)], 1)
        yield figure(f"{name}, scrolled, p95 frame", p95, "ms", target=50)
    page = context.new_page()
    news = _news(page, stack)
    value = round(statistics.median(news))
    yield figure("news to pixel, p50", value, "ms", target=100, spread=spread(news, 0))
    page.goto(f"{stack.url}/ui/")
    page.locator(".counters").wait_for()
    size = page.evaluate(SIZES)
    yield figure("JavaScript of the first view, gzip", size, "B", target=FIRST_VIEW)


def _all_sizes() -> int:
    """Return the size of all scripts of the page under gzip."""
    return sum(len(gzip.compress(each.read_bytes())) for each in STATIC.rglob("*.js"))
