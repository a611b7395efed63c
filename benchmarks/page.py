"""The page on a full store: first useful paint of each view, frames, memory, news to pixel, sizes.

All of it takes 20 minutes on a quiet machine with two cores. `PAGE_ROUNDS` says how often each view
is opened (3), `PAGE_MINUTES` how long a tab stays open under a thousand news a second (10),
`PAGE_VIEWS` which views are opened, by parts of their names, and `PAGE_PARTS` which of `paints`,
`frames`, `find`, `news`, `sizes` and `memory` are measured (all of them). What cannot be measured
is a figure that is not met; the others are measured all the same.
"""

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import statistics
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import (
    Browser,
    BrowserContext,
    CDPSession,
    Page,
    ViewportSize,
    sync_playwright,
)

from benchmarks.figures import figure, spread
from benchmarks.page_filling import fill
from benchmarks.stack import Stack
from pubsubflow.api.page.files import STATIC

DAGS = Path(__file__).parent / "dags"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage")
VIEWPORT: ViewportSize = {"width": 1280, "height": 800}
ROUNDS = int(os.environ.get("PAGE_ROUNDS", "3"))
MINUTES = float(os.environ.get("PAGE_MINUTES", "10"))
ONLY = os.environ.get("PAGE_VIEWS", "").split()
PARTS = os.environ.get("PAGE_PARTS", "paints frames find news sizes memory").split()
GIVEN_UP = 60
NEWS = 20
NEWS_A_SECOND, BATCH = 1000, 100
WARM = 0.2  # of the time until what grows at first has grown
NEWS_URI = "bench://news/"
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
# Of what a frame shows its time is that of the next one: by then it is on the screen.
SEEN = """
window.seen = {};
new MutationObserver(() => requestAnimationFrame(() => {
  for (const link of document.querySelectorAll('tbody tr a[href*="/ui/runs/"]')) {
    window.seen[link.getAttribute('href').split('/').pop()] ??= Date.now();
  }
})).observe(document, { childList: true, subtree: true });
"""


def views(runs: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return the address of each view, and what of it is useful, by name."""
    part = quote("bench://lake/part-00500", safe="")
    every = {
        "now": ("/ui/", ".counters"),
        "runs": ("/ui/runs", "tbody tr"),
        "dags": ("/ui/dags", "tbody tr"),
        "dags searched": ("/ui/dags?text=fill-09", "tbody tr"),
        "why": ("/ui/dags/fill-00042", ".panel h2"),
        "grid 500 x 50": ("/ui/dags/wide?tab=grid&fold=none", ".grid-row"),
        "graph": ("/ui/dags/fill-00042?tab=graph", ".node"),
        "run": (f"/ui/runs/{runs['wide']}", "tbody tr"),
        "mapped 10,000": (f"/ui/runs/{runs['mapped']}?state=failed", "tbody tr"),
        "log of 1,000,000 lines": (
            f"/ui/runs/{runs['wide']}/tasks/stage_0.step_0",
            ".output .l time",
        ),
        "tasks that failed": ("/ui/tasks?state=failed&dag=wide", "tbody tr"),
        "run of 500, timeline": (f"/ui/runs/{runs['wide']}?tab=timeline", ".lane"),
        "run of 500, graph": (f"/ui/runs/{runs['wide']}?tab=graph", ".node"),
        "mapped 10,000, timeline": (f"/ui/runs/{runs['mapped']}?tab=timeline", ".lane"),
        "trace of a run": (f"/ui/runs/{runs['wide']}?tab=trace", ".node"),
        "trace of an event": (f"/ui/events/{runs['event']}?tab=trace", ".node"),
        "schedule": ("/ui/dags/fill-00042?tab=schedule", ".tabs ~ :not(.loading)"),
        "versions": ("/ui/dags/fill-00042?tab=versions", "main button.chip"),
        "settings": ("/ui/dags/wide?tab=settings", ".facts"),
        "events": ("/ui/events", "tbody tr"),
        "event": (f"/ui/events/{runs['event']}", ".facts"),
        "datasets": ("/ui/datasets", "tbody tr"),
        "datasets searched": ("/ui/datasets?text=part-09", "tbody tr"),
        "dataset": (f"/ui/datasets/{part}", ".facts"),
        "dataset graph": (f"/ui/datasets/{part}?tab=graph&up=9&down=9", ".node"),
        "waits": ("/ui/waits", "main h1"),
        "letters": ("/ui/letters", "main h1"),
        "approvals": ("/ui/approvals", "main h1"),
        "backfills": ("/ui/past", ".wizard"),
        "simulator": ("/ui/simulator", ".timeline"),
        "system": ("/ui/system", "tbody tr"),
        "alerts": ("/ui/system/alerts", "main .chips"),
    }
    return {
        name: each for name, each in every.items() if not ONLY or any(part in name for part in ONLY)
    }


# Long lists, each with what scrolls.
SCROLLED = {
    "grid 500 x 50, unfolded": ("/ui/dags/wide?tab=grid&text=step", ".grid-row", ".grid-box"),
    "1,000 runs": ("/ui/runs?pages=20", "tbody tr", "html"),
    "1,000 DAGs": ("/ui/dags?pages=20", "tbody tr", "html"),
    "1,000 datasets": ("/ui/datasets?pages=20", "tbody tr", "html"),
    "1,000 instances of 10,000": ("/ui/runs/{mapped}?pages=20", "tbody tr", "html"),
    "log of 1,000,000 lines": (
        "/ui/runs/{wide}/tasks/stage_0.step_0",
        ".output .l",
        ".output",
    ),
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
        end = time.monotonic() + GIVEN_UP
        while not (painted := page.evaluate("window.useful")):
            if time.monotonic() > end:
                print(f"{url} shows no {wanted}", flush=True)
                return 1000.0 * GIVEN_UP
            page.wait_for_timeout(10)
        return float(painted)
    finally:
        page.close()


def _frames(context: BrowserContext, url: str, wanted: str, box: str) -> list[float]:
    page = context.new_page()
    try:
        page.goto(url)
        page.locator(wanted).first.wait_for()
        page.wait_for_timeout(1000)  # what comes with it, as a person would see it
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
        page.wait_for_timeout(500)  # its tasks end meanwhile: the next one is news after a calm
    return found


def _post_news(url: str, stop: threading.Event, posted: list[int]) -> None:
    """Post events, as many a second as is wanted, until it is to stop."""
    due = time.monotonic()
    body = json.dumps([{"dataset": f"{NEWS_URI}{number % 10}"} for number in range(BATCH)]).encode()
    headers = {"Content-Type": "application/json"}
    while not stop.wait(max(0.0, due - time.monotonic())):
        due = max(due + BATCH / NEWS_A_SECOND, time.monotonic() - 1)
        request = urllib.request.Request(f"{url}/api/v1/datasets/events", body, headers)
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=30):
            posted.append(BATCH)


def _megabytes(session: CDPSession) -> tuple[float, float]:
    """Return what a tab keeps: its heap after a collection, and how many nodes it has."""
    session.send("HeapProfiler.collectGarbage")
    metrics = {
        each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]
    }
    return metrics["JSHeapUsedSize"] / 2**20, metrics["Nodes"]


def _memory(context: BrowserContext, stack: Stack) -> Iterator[dict[str, Any]]:
    """Watch a tab under a thousand news a second: what it keeps must not grow."""
    page = context.new_page()
    page.goto(f"{stack.url}/ui/events")
    page.locator("main h1").wait_for()
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    stop, posted = threading.Event(), list[int]()
    poster = threading.Thread(target=_post_news, args=(stack.url, stop, posted))
    began = time.monotonic()
    poster.start()
    kept: list[tuple[float, float]] = []
    try:
        while time.monotonic() - began < MINUTES * 60:
            page.wait_for_timeout(min(10_000, MINUTES * 6_000))
            kept.append(_megabytes(session))
    finally:
        stop.set()
        poster.join()
    rate = round(sum(posted) / (time.monotonic() - began))
    page.close()
    warm = kept[int(len(kept) * WARM) :]
    third = max(1, len(warm) // 3)
    for at, name, unit, most in ((0, "heap", "MB", 2), (1, "nodes", "", 500)):
        values = [each[at] for each in warm]
        grown = statistics.median(values[-third:]) - statistics.median(values[:third])
        title = f"tab under news for {MINUTES:g} min, {name}: last third - first third"
        facts: dict[str, Any] = {"spread": spread(values, 1), "news a second": rate}
        yield figure(title, round(grown, 1), unit, target=most, **facts)
    yield figure("news a second meanwhile", rate, "1/s", target=NEWS_A_SECOND * 0.95, more=True)


def run() -> list[dict[str, Any]]:
    """Measure the page; return its figures."""
    with Stack(DAGS) as stack:
        # Before the driver, whose loop is that of the thread.
        runs = asyncio.run(fill(stack.dsn))
        runs["event"] = stack.get("/datasets/events?limit=1")["items"][0]["event_id"]
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
            figures = measure(browser, stack, runs)
            browser.close()
    return figures


def measure(browser: Browser, stack: Stack, runs: dict[str, str]) -> list[dict[str, Any]]:
    """Measure the parts that are wanted; one that fails is a figure that is not met."""
    context = browser.new_context(viewport=VIEWPORT)
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "paints": lambda: _paints(browser, stack, runs),
        "frames": lambda: _scrolled(context, stack, runs),
        "find": lambda: _find(context, stack, runs),
        "news": lambda: _news_to_pixel(context, stack),
        "sizes": lambda: _sizes(context, stack),
        "memory": lambda: _memory(context, stack),
    }
    figures = list[dict[str, Any]]()
    for name in PARTS:
        began = time.monotonic()
        try:
            figures.extend(parts[name]())
        except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
            traceback.print_exception(error)
            figures.append(figure(f"{name}, {type(error).__name__}", 1, "failed", target=0))
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    context.close()
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
                if painted[-1] >= 1000 * GIVEN_UP:
                    break
            title = f"{name}, first useful paint{', CPU / 4, 1.6 Mbit/s' if slow else ''}"
            value = round(statistics.median(painted))
            yield figure(title, value, "ms", target=target, spread=spread(painted, 0))


def _scrolled(
    context: BrowserContext, stack: Stack, runs: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for name, (path, wanted, box) in SCROLLED.items():
        deltas = sorted(_frames(context, stack.url + path.format(**runs), wanted, box))
        p95 = round(deltas[int(len(deltas) * 0.95)], 1)
        yield figure(f"{name}, scrolled, p95 frame", p95, "ms", target=50, spread=spread(deltas, 1))


def _find(context: BrowserContext, stack: Stack, runs: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Find the first of a million lines by `Ctrl F`, from the last one."""
    page = context.new_page()
    page.goto(f"{stack.url}/ui/runs/{runs['wide']}/tasks/stage_0.step_0")
    page.locator(".output .l time").first.wait_for()
    page.keyboard.press("Control+F")
    page.keyboard.insert_text("line 4711")
    began = time.monotonic()
    page.keyboard.press("Enter")
    page.locator(".output .marked", has_text="line 4711").wait_for()
    value = round((time.monotonic() - began) * 1000)
    yield figure("text found among 1,000,000 lines by Ctrl F", value, "ms", target=5000)
    page.close()


def _news_to_pixel(context: BrowserContext, stack: Stack) -> Iterator[dict[str, Any]]:
    page = context.new_page()
    news = _news(page, stack)
    value = round(statistics.median(news))
    yield figure("news to pixel, p50", value, "ms", target=100, spread=spread(news, 0))
    page.close()


def _sizes(context: BrowserContext, stack: Stack) -> Iterator[dict[str, Any]]:
    page = context.new_page()
    page.goto(f"{stack.url}/ui/")
    page.locator(".counters").wait_for()
    size = page.evaluate(SIZES)
    yield figure("JavaScript of the first view, gzip", size, "B", target=FIRST_VIEW)
    yield figure("all JavaScript, gzip", _all_sizes(), "B", target=ALL)
    page.close()


def _all_sizes() -> int:
    """Return the size of all scripts of the page under gzip."""
    return sum(len(gzip.compress(each.read_bytes())) for each in STATIC.rglob("*.js"))
