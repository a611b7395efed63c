"""A real Chromium on the page of a real daemon.

Whatever the browser complains about fails the test at whose end it is found: messages of its
console, errors of scripts, requests that fail, and what the page's policy has blocked.
"""

import importlib.util
import io
import json
import os
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from pubsubflow.api.page.files import STATIC
from pubsubflow.cli.daemon_process import child_daemon
from support.command_server import CommandServer

DAGS = Path(__file__).with_name("dags")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",  # also of root
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
)
EXPECT_MS = 20_000
"""How long what is expected may take: a machine can be busy with other tests."""
SHOTS = os.environ.get("PUBSUBFLOW_SCREENSHOTS")
"""A folder for pictures of all views, for people; see docs/images/page."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AUDIT = """rules => axe.run({runOnly: rules, resultTypes: ['violations']}).then(found =>
  found.violations.map(each => [each.id, each.nodes[0].target, each.nodes[0].failureSummary]))"""
MOVE = """path => {
  history.pushState(null, '', path);
  dispatchEvent(new PopStateEvent('popstate'));
}"""
WATCH = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


@pytest.fixture(scope="module")
def chromium():
    """The browser; the page must be built, and a Chromium installed.

    Of one file: the driver's loop is that of the thread for as long as it is open, and other files
    that run in this process want their own.
    """
    if not (STATIC / "digest.txt").is_file():
        if os.environ.get("PUBSUBFLOW_PAGE") == "require":
            pytest.fail("the page is not built")
        pytest.skip("the page is not built: make page")
    if not Path(CHROMIUM).is_file():
        pytest.skip("no Chromium: apt-get install chromium, or name one by $CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    playwright.expect.set_options(timeout=EXPECT_MS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory, fresh_home):
    return fresh_home(tmp_path_factory.mktemp("browser") / "home")


@pytest.fixture(scope="module")
def url(chromium, home):
    folder = DAGS
    if SHOTS:  # tracebacks in pictures name no folder of the machine that they are made on
        folder = Path(tempfile.gettempdir(), "dags")
        shutil.copytree(DAGS, folder, dirs_exist_ok=True)
    with child_daemon(folder, home=home, port=0) as url:
        yield url


def small(picture):
    """Return a picture in 128 colours, where Pillow is installed: a third of the bytes."""
    if importlib.util.find_spec("PIL") is None:
        return picture
    image = importlib.import_module("PIL.Image")
    found = io.BytesIO()
    whole = image.open(io.BytesIO(picture)).convert("RGB")
    whole.quantize(128, dither=image.Dither.NONE).save(found, "PNG", optimize=True)
    return found.getvalue()


class Tab:
    """A tab, and what its browser complained about."""

    def __init__(self, page, url):
        self.page = page
        self.url = url
        self.complaints = []
        self.expected = None
        self.schemes = ["light", "dark"]
        self.listeners = {
            "console": self._heard,
            "pageerror": lambda error: self.complaints.append(f"error: {error}"),
            "requestfailed": self._failed,
        }
        for name, listener in self.listeners.items():
            page.on(name, listener)

    def __getattr__(self, name):
        return getattr(self.page, name)

    def open(self, path):
        """Open a view, and wait for its heading."""
        self.page.goto(self.url + path)
        self.page.get_by_role("heading", level=1).wait_for()
        self.settle()
        return self

    def move(self, path):
        """Go to another view as a link does: the page stays."""
        self.page.evaluate(MOVE, path)
        self.settle()

    def faults(self, *rules):
        """Return what axe finds wrong with what is shown, by all rules if none is named."""
        if not self.page.evaluate("typeof axe === 'object'"):
            axe = pytest.importorskip("axe_playwright_python.base", reason="see `make env`")
            self.page.evaluate(axe.AXE_SCRIPT)
        return self.page.evaluate(AUDIT, list(rules or RULES))

    def look(self, name):
        """Check it in light, dark, and 320 pixels wide, where nothing is cut off; take pictures."""
        for scheme, rules in zip(self.schemes, (RULES, ["color-contrast"]), strict=True):
            self.emulate_media(color_scheme=scheme)
            assert self.faults(*rules) == [], (name, scheme)
            self.shoot(f"{name}-{scheme}")
        self.schemes.reverse()  # the next one is looked at first as this one is left
        self.set_viewport_size({"width": 320, "height": 640})
        wide = self.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (name, wide)
        if SHOTS:
            self.emulate_media(color_scheme="light")
            self.shoot(f"{name}-phone", full_page=True)
        self.set_viewport_size({"width": 1280, "height": 800})

    def shoot(self, name, **options):
        """Take a picture, where pictures are wanted."""
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            Path(SHOTS, f"{name}.png").write_bytes(small(self.screenshot(**options)))

    def settle(self):
        """Wait until nothing is loading any more."""
        self.until("!document.querySelector('.loading')")

    def until(self, expression, seconds=30):
        """Wait until an expression is true; `wait_for_function` is eval, which is forbidden."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(20)

    def leave(self):
        """Leave the page to the next test as if nobody had used it."""
        for name, listener in self.listeners.items():
            self.page.remove_listener(name, listener)
        self.page.evaluate("localStorage.clear()")
        self.page.context.clear_cookies()
        self.page.emulate_media(color_scheme="light")

    def check(self):
        """Fail if the browser has complained."""
        blocked = self.page.evaluate("window.violations") if self.page.url != "about:blank" else []
        found = [each for each in self.complaints if not self.expected or self.expected not in each]
        assert (found, blocked) == ([], [])

    def _heard(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _failed(self, request):
        # A view that is left cancels what it had asked for.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.url} {request.failure}")


def send(url, path, body=None, *, method=None, token=None):
    """Send a request as a program does; return the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, method=method)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or b"null")


class Api:
    """The API of the daemon, to prepare what the page shows."""

    def __init__(self, url):
        self.url = url

    def __call__(self, path, body=None, **options):
        return send(self.url, f"/api/v1/{path}", body, **options)

    def start(self, dag, *, wait=True, **params):
        run_id = self(f"dags/{dag}/runs", {"params": params})["run_id"]
        if wait:
            self(f"runs/{run_id}/wait?timeout=30")
        return run_id

    def post(self, dataset, **extra):
        return self("datasets/events", {"dataset": dataset, "extra": extra})["ids"][0]

    def until(self, path, condition):
        """Request until an answer is as it should be; return it."""
        end = time.monotonic() + 30
        while not condition(found := self(path)):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def api(url):
    return Api(url)


@pytest.fixture(scope="module")
def commands():
    with CommandServer() as server:
        yield server


@pytest.fixture(scope="module")
def new_context(chromium):
    """Make what a browser of another person would be."""

    def make(**options):
        context = chromium.new_context(
            viewport={"width": 1280, "height": 800},
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
            **options,
        )
        context.set_default_timeout(30_000)
        context.add_init_script(WATCH)
        return context

    return make


@pytest.fixture
def browse(new_context, url):
    """Open tabs; all have to end without a complaint."""
    contexts, tabs = [], []

    def open_tab(*, context=None, **options):
        if context is None:
            context = new_context(**options)
            contexts.append(context)
        tabs.append(Tab(context.new_page(), url))
        return tabs[-1]

    yield open_tab
    try:
        for tab in tabs:
            tab.check()
    finally:
        for context in contexts:
            context.close()


@pytest.fixture(scope="module")
def page(new_context):
    """The page of the tests that need none of their own: a new one costs a second."""
    context = new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def tab(page, url):
    """A tab; it has to end without a complaint."""
    tab = Tab(page, url)
    yield tab
    try:
        tab.check()
    finally:
        tab.leave()
