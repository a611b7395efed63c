"""The page, clicked through as a person does: on a real daemon, in a real browser."""

import re
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture(scope="module")
def known(api):
    """Something of everything: runs that succeeded, failed, wait; events; a dead letter."""
    api.post("s3://shop/customers", rows=0)
    api.post("s3://shop/customers", rows=2)
    event = api.post("s3://shop/orders", rows=3)
    api.post("s3://shop/returns", rows=0)  # held by the check
    api("variables/region", {"value": "eu", "description": "Where it runs"}, method="PUT")
    api(
        "connections/warehouse",
        {"uri": "postgres://ann@db.example.com/sales", "secrets": {"password": "tr0ub4dor"}},
        method="PUT",
    )
    api("pools/warehouse", {"slots": 4}, method="PUT")
    api.post("s3://shop/orders", note="without rows")  # a dead letter of `strict`
    failed = api.start("load", flag="/nowhere", rows=2)
    asking = api.start("deploy", wait=False)
    api.start("sleeps", wait=False)
    api.until("triggers", lambda found: len(found["items"]) >= 2)
    api.until("dags?tag=past", lambda found: len(found["items"]) == 3)  # of another file
    days = {"from": "2026-04-01T00:00:00Z", "to": "2026-04-08T00:00:00Z"}
    backfill = api("dags/t_books/backfill", days)
    letter = api.until("dead-letters", lambda found: found["items"])["items"][0]["id"]
    runs = api.until("runs?dag=report&state=success", lambda found: found["items"])["items"]
    return {
        "event": event,
        "failed": failed,
        "asking": asking,
        "report": runs[0]["run_id"],
        "adding": api("runs?dag=add_up")["items"][0]["run_id"],
        "letter": letter,
        "backfill": backfill["backfill_id"],
        "approval": api("approvals")["items"][0]["id"],
    }


def views(known):
    """Return the address of each view, by the name of its picture."""
    return {
        "now": "/ui/",
        "runs": "/ui/runs",
        "run": f"/ui/runs/{known['failed']}",
        "run-graph": f"/ui/runs/{known['adding']}?tab=graph",
        "run-why": f"/ui/runs/{known['report']}?tab=why",
        "run-params": f"/ui/runs/{known['failed']}?tab=params",
        "task": f"/ui/runs/{known['failed']}/tasks/read",
        "task-result": f"/ui/runs/{known['adding']}/tasks/total?tab=result",
        "tasks": "/ui/tasks?state=failed",
        "dags": "/ui/dags",
        "dag-why": "/ui/dags/add_up",
        "dag-grid": "/ui/dags/add_up?tab=grid",
        "dag-runs": "/ui/dags/add_up?tab=runs",
        "dag-schedule": "/ui/dags/nightly?tab=schedule",
        "dag-versions": "/ui/dags/add_up?tab=versions",
        "dag-graph": "/ui/dags/add_up?tab=graph",
        "dag-settings": "/ui/dags/add_up?tab=settings",
        "datasets": "/ui/datasets",
        "dataset": f"/ui/datasets/{quote('s3://shop/orders', safe='')}",
        "dataset-graph": f"/ui/datasets/{quote('s3://shop/totals', safe='')}?tab=graph",
        "dataset-held": f"/ui/datasets/{quote('s3://shop/returns', safe='')}?tab=held",
        "system": "/ui/system",
        "pools": "/ui/system/pools",
        "connections": "/ui/system/connections",
        "variables": "/ui/system/variables",
        "intake": "/ui/system/intake",
        "alerts": "/ui/system/alerts",
        "access": "/ui/system/access",
        "events": "/ui/events",
        "event": f"/ui/events/{known['event']}",
        "waits": "/ui/waits",
        "approvals": "/ui/approvals",
        "approval": f"/ui/approvals/{known['approval']}",
        "letters": "/ui/letters",
        "letter": f"/ui/letters/{known['letter']}",
        "past": "/ui/past?dag=t_books&from=2026-05-01T00:00:00Z&to=2026-05-08T00:00:00Z",
        "past-replay": "/ui/past?kind=replay&dataset=s3://shop/orders&from=2026-01-01T00:00:00Z",
        "simulator": "/ui/simulator",
        "backfill": f"/ui/past/{known['backfill']}",
        "account": "/ui/account",
        "nothing": "/ui/nothing/here",
    }


def test_every_view_is_accessible(tab, known):
    """Light, dark, and 320 pixels wide, where nothing is cut off; four requests at most a view."""
    asked = set()  # what has changed meanwhile is asked for again, and counts once
    tab.page.on("request", lambda request: asked.add(request.url))
    tab.open("/ui/account")
    for name, path in views(known).items():
        asked.clear()
        tab.move(path)
        heading = tab.get_by_role("heading", level=1).inner_text()
        expect(tab.page).to_have_title(f"{heading} · pubsubflow")
        calls = [each for each in asked if "/api/v1/" in each and "/stream" not in each]
        assert len(calls) <= 3, (name, calls)  # a fourth is who one is, when the page is loaded
        tab.look(name)


def test_every_view_stands_in_the_docs_in_small_pictures():
    """In light, dark, and on a phone; `PUBSUBFLOW_SCREENSHOTS=docs/images/page` makes them."""
    docs = Path(__file__).parents[2] / "docs"
    listed = (docs / "page-views.md").read_text()
    for name in (*views(defaultdict(str)), "trace", "trace-time", "timeline", "output-long"):
        for look in ("light", "dark", "phone"):
            picture = f"images/page/{name}-{look}.png"
            assert picture in listed
            assert (docs / picture).stat().st_size < 80_000, picture


def test_a_dead_letter_is_edited_and_sent_again(tab, known):
    tab.open("/ui/letters")
    groups = tab.get_by_role("table", name="Dead letters by reason")
    expect(groups).to_contain_text("strict")
    tab.open(f"/ui/letters/{known['letter']}")
    tab.keyboard.press("e")
    dialog = tab.get_by_role("dialog")
    payload = dialog.get_by_label("Payload")
    expect(payload).to_have_value(re.compile('"params": null'))
    text = payload.input_value()
    payload.fill(text.replace('"params": null', '"params": {"rows": 5}'))
    expect(payload).to_have_value(re.compile('"rows": 5'))
    expect(dialog.get_by_role("region", name="What is changed")).to_contain_text('"rows": 5')
    dialog.get_by_role("button", name="Send again").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run of strict")
    tab.open(f"/ui/letters/{known['letter']}")
    expect(tab.get_by_role("button", name="Edit and send again")).to_be_disabled()


def test_an_approval_is_answered(tab, known):
    tab.open("/ui/approvals")
    tab.get_by_role("link", name="Deploy to production?").first.click()
    tab.get_by_role("button", name="approve").click()
    dialog = tab.get_by_role("dialog", name="Deploy to production?: approve")
    dialog.get_by_label("Comment").fill("looks good")
    dialog.get_by_role("button", name="approve").click()
    expect(tab.get_by_role("table", name="Votes")).to_contain_text("looks good")
    tab.open(f"/ui/runs/{known['asking']}")
    expect(tab.locator(".heading .state")).to_have_text("success")


def test_a_failure_is_one_click_from_its_error_and_the_grid_leads_to_tasks(tab, api):
    """At three in the morning: what failed, its error; then the same by keys from the grid."""
    api.start("load", flag="/nowhere", rows=1)
    tab.open("/ui/")
    failures = tab.get_by_role("table", name="Failed runs")
    row = failures.get_by_role("row", name=re.compile(r"\bload\b"))
    expect(row).to_contain_text("FileNotFoundError")
    row.get_by_role("link", name="read", exact=True).click()
    expect(tab.get_by_role("region", name="Traceback")).to_contain_text("pages.py")
    tab.open("/ui/dags/load?tab=grid")
    grid = tab.get_by_role("grid", name="Tasks by run")
    grid.locator("[tabindex='0']").focus()
    for key in ("Control+Home", "End", "ArrowDown"):
        tab.keyboard.press(key)
    focused = grid.locator(":focus")
    expect(focused).to_have_attribute("aria-label", re.compile("^read, run .*: failed$"))
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", level=1)).to_contain_text("read")


MIDDLES = """canvas => {
  const [context, size] = [canvas.getContext('2d'), canvas.height];
  const pixel = column => context.getImageData((column + 0.5) * size, size / 2, 1, 1).data;
  return Array.from({length: canvas.width / size}, (_, column) => [...pixel(column)]).flat();
}"""


def wide_grid(rows=300, columns=60):
    """Return a grid as the API sends it, far larger than a screen."""
    runs = [
        {"run_id": f"01a00000-0000-7000-8000-{column:012}", "state": "failed", "version": 1}
        | {"kind": "manual", "cause": "by hand", "created_at": "2026-04-01T00:00:00Z"}
        | {"ended_at": "2026-04-01T00:01:00Z", "marks": "12" * (rows // 2), "counts": {}}
        for column in range(columns)
    ]
    tasks = [{"task_id": f"step_{row}"} for row in range(rows)]
    return {"dag_id": "load", "states": ["none", "success", "failed"], "tasks": tasks, "runs": runs}


def test_of_a_wide_grid_what_is_in_view_is_drawn_and_keys_reach_the_rest(tab):
    tab.route("**/dags/load/grid*", lambda route: route.fulfill(json=wide_grid()))
    try:
        tab.open("/ui/dags/load?tab=grid")
        grid = tab.get_by_role("grid", name="Tasks by run")
        assert grid.get_by_role("gridcell").count() < 60 * 60
        # Signs are pictures, in the colours that are chosen; each cell has one.
        first = "document.querySelector('.signs canvas')"
        light = tab.evaluate(f"({MIDDLES})({first})")
        tab.emulate_media(color_scheme="dark")
        tab.until(f"({MIDDLES})({first}).join() !== '{','.join(map(str, light))}'")
        for pixels in (light, tab.evaluate(f"({MIDDLES})({first})")):
            assert set(pixels[3::4]) == {255}
        tab.emulate_media(color_scheme="light")
        focused, box = grid.locator(":focus"), tab.locator(".grid-box")
        grid.locator("[tabindex='0']").focus()
        newest, oldest = "run 00000059 ", "run 00000000 "
        for keys, row, run in (
            (["Control+End"], "step_299,", newest),
            (["Home", "ArrowRight"], "step_299,", oldest),
            (["PageUp", "PageDown", "ArrowUp"], "step_298,", oldest),
            (["Control+Home", "ArrowRight"], "step_0,", oldest),
            (["End", "ArrowDown"], "step_1,", newest),
        ):
            for key in keys:
                tab.keyboard.press(key)
            expect(focused).to_have_attribute("aria-label", re.compile(f"^{row} {run}"))
            expect(focused).to_be_in_viewport()
        # Scrolled away from what has the focus, keys go on from there, and it can be tabbed into.
        box.evaluate("box => { box.scrollTop = 3000; box.scrollLeft = 0; }")
        expect(grid.locator("[tabindex='0']")).to_be_in_viewport()
        tab.keyboard.press("ArrowDown")
        expect(focused).to_have_attribute("aria-label", re.compile(f"^step_2, {newest}"))
        focused.hover()
        expect(tab.locator(".grid-said")).to_contain_text("step_2, run 00000059")
        tab.keyboard.press("Control+Home")
        expect(focused).to_have_text("step_0")
    finally:
        tab.unroute("**/dags/load/grid*")


def test_a_held_event_is_released_and_a_pool_is_changed(tab, known, api):
    tab.open(f"/ui/datasets/{quote('s3://shop/returns', safe='')}?tab=held")
    held = tab.get_by_role("table", name="Held events")
    expect(held).to_contain_text("has_rows")
    tab.get_by_role("button", name="Release", exact=True).click()
    dialog = tab.get_by_role("dialog", name="Release the event")
    dialog.get_by_label("Why, in one line").fill("an empty day")
    dialog.get_by_text("The same as a command").click()
    expect(dialog.get_by_text(re.compile("pubsubflow checks release .* --note"))).to_be_visible()
    dialog.get_by_role("button", name="Release").click()
    expect(tab.get_by_text("No check holds an event of it.")).to_be_visible()
    api.until("runs?dag=refund", lambda found: found["items"])
    tab.open("/ui/system/pools")
    tab.get_by_role("button", name="Change").click()
    dialog = tab.get_by_role("dialog", name="Set pool warehouse")
    dialog.get_by_label("Slots").fill("7")
    dialog.get_by_role("button", name="Set").click()
    expect(tab.get_by_role("table", name="Pools")).to_contain_text("of 7")
    for view in ("connections", "variables"):
        tab.open(f"/ui/system/{view}")
        assert "tr0ub4dor" not in tab.page.content()


def test_everything_is_reached_by_keys(tab):
    """Palette, keys of two letters, rows of a table, a dialog and its end."""
    tab.open("/ui/runs")
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to the content")).to_be_focused()
    tab.keyboard.press("g")
    tab.keyboard.press("d")
    expect(tab.get_by_role("heading", level=1)).to_have_text("DAGs")
    tab.settle()
    expect(tab.locator("main")).to_be_focused()
    tab.get_by_role("link", name="add_up").focus()
    tab.keyboard.press("j")
    expect(tab.get_by_role("link", name="deploy")).to_be_focused()
    tab.keyboard.press("k")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", level=1)).to_have_text("add_up")
    tab.keyboard.press("p")
    expect(tab.get_by_role("dialog", name="Pause add_up")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.get_by_role("dialog")).to_have_count(0)
    tab.keyboard.press("/")
    box = tab.get_by_role("combobox", name=re.compile("Name of a view"))
    expect(box).to_be_focused()
    tab.keyboard.type("shop/tot")
    expect(tab.get_by_role("option", name="s3://shop/totals")).to_be_visible()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", level=1)).to_have_text("s3://shop/totals")
    # What is typed as soon as a dialog is asked for goes into it, and one gives way to another.
    for key in ("/", "d", "p"):
        tab.keyboard.press(key)
    expect(box).to_have_value("dp")
    tab.keyboard.press("Escape")  # empties it
    tab.keyboard.press("Escape")
    tab.keyboard.press("?")
    tab.get_by_role("checkbox", name="Keys of a single letter act").uncheck()
    tab.keyboard.press("Control+k")
    expect(box).to_be_focused()
    expect(tab.get_by_role("dialog")).to_have_count(1)
    for key in ("Escape", "g", "r", "Control+k"):
        tab.keyboard.press(key)
    expect(box).to_be_focused()
    expect(tab.get_by_role("heading", level=1)).to_have_text("s3://shop/totals")


def test_a_trace_leads_from_an_event_to_what_followed_and_back(tab, known, api):
    asked = set()
    tab.page.on("request", lambda request: asked.add(request.url))
    tab.open(f"/ui/events/{known['event']}?tab=trace")
    drawing = tab.get_by_role("region", name="Causes and effects")
    expect(drawing.get_by_role("link", name=re.compile("add_up"))).to_be_visible()
    expect(drawing.get_by_role("link", name=re.compile("report"))).to_be_visible()
    assert sum("/api/v1/" in each and "/stream" not in each for each in asked) <= 4
    effects = tab.get_by_role("list", name="Has led to")
    expect(effects).to_contain_text(re.compile(r"\d (ms|s) from the event to the run"))
    expect(effects).to_contain_text("task total of add_up")
    expect(tab.get_by_role("list", name="Because of")).to_contain_text("from outside (api)")
    tab.look("trace")
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
    tab.look("trace-time")
    tab.get_by_role("link", name=re.compile("Run of add_up, success")).first.click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run of add_up")
    expect(tab.get_by_role("list", name="Because of")).to_contain_text("s3://shop/customers")
    # Live: what follows appears while one looks.
    tab.open(f"/ui/events/{api.post('s3://shop/totals')}?tab=trace")
    expect(tab.get_by_role("list", name="Has led to")).to_contain_text("success")


def test_a_timeline_shows_attempts_and_instances(tab, known, api):
    tab.open(f"/ui/runs/{known['adding']}?tab=timeline")
    drawing = tab.get_by_role("region", name="Tasks by time")
    expect(
        drawing.get_by_role("link", name=re.compile(r"part\.0, attempt 1: success"))
    ).to_be_visible()
    same = tab.get_by_role("list", name="Tasks by time, as a list")
    expect(same).to_contain_text(re.compile(r"queued for a worker [\d.]+ (ms|s)"))
    expect(same).to_contain_text("median")
    tab.look("timeline")
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


def test_an_address_restores_its_view(tab, api):
    tab.open("/ui/runs")
    tab.get_by_role("button", name="failed", exact=True).click()
    # What is typed stays while the list changes.
    tab.get_by_label("DAG").fill("load")
    run_id = api.start("load", flag="/nowhere", rows=1)
    table = tab.get_by_role("table", name="Runs")
    expect(table.locator(f'a[href="/ui/runs/{run_id}"]')).to_be_visible()
    expect(tab.get_by_label("DAG")).to_have_value("load")
    tab.get_by_label("DAG").press("Enter")
    tab.until("location.search.includes('dag=load')")
    expect(table.get_by_role("link", name="load").first).to_be_visible()
    address = tab.page.url
    tab.open("/ui/dags")
    tab.page.go_back()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Runs")
    assert tab.page.url == address
    expect(tab.get_by_role("button", name="failed", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(table.get_by_role("row")).not_to_have_count(1)


CHOSEN = {
    "DAG": "load",
    "Task": "read",
    "Partition": "2026-05-01",
    "Dataset": "s3://shop/orders",
    "Tag": "shop",
    "Owner": "ann",
    "By": "local",
}
"""What is typed into the fields of these names; into others a letter that is in many names."""

CHOOSE = """chosen => {
  const nameOf = each => each.labels[0]?.innerText.split('\\n')[0].trim() ?? '';
  const type = (each, text) => {
    const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(each), 'value').set;
    set.call(each, text);
    for (const kind of ['input', 'change']) each.dispatchEvent(new Event(kind, { bubbles: true }));
  };
  const places = document.querySelectorAll('main :is(.filters:not(form), .tools)');
  for (const place of places) {
    for (const field of place.querySelectorAll('input:not([type=checkbox])')) {
      type(field, field.type === 'number' ? '3' : chosen[nameOf(field)] ?? 'o');
    }
    for (const field of place.querySelectorAll('select')) {
      type(field, field.options[field.options.length - 1].value);
    }
  }
}"""
STATE = """() => {
  const all = (what, read) => [...document.querySelectorAll(`main ${what}`)].map(read);
  const text = each => each.innerText.trim().replace(/\\d+/g, '#');
  return {
    heading: document.querySelector('h1').innerText,
    tabs: all('.tabs a[aria-current]', text),
    pressed: all('button[aria-pressed=true]', text),
    fields: all('input:not([type=checkbox]), select, textarea', each => each.value),
    boxes: all('input[type=checkbox]:checked', each => each.ariaLabel ?? text(each.labels[0])),
    selected: all('.bulk > span:first-child', each => each.innerText),
    shown: all('.lanes .tools .faint', text),
  };
}"""


def until_equal(read, expected, about, seconds=30):
    """Read until it is what is expected."""
    end = time.monotonic() + seconds
    while (found := read()) != expected:
        assert time.monotonic() < end, (about, found, expected)
        time.sleep(0.05)


def choose(tab):
    """Change whatever of a view can be changed without changing anything else."""
    box = tab.locator("main tbody td.box input")
    if box.count():
        box.first.check()
    tab.evaluate(CHOOSE, CHOSEN)
    chips = tab.locator("main :is(.filters, .chips, .tools) button[aria-pressed=false]")
    if chips.count():
        chips.last.click()
    fold = tab.get_by_label("Fold idle time")
    if fold.count():
        fold.uncheck()
        tab.get_by_role("button", name="Zoom in").click()
    tab.settle()


def test_every_view_is_restored_by_its_address(tab, browse, known):
    """Every address of the router, with all that one can choose there, in another browser."""
    source = (Path(__file__).parents[2] / "web" / "src" / "shell.tsx").read_text()
    patterns = re.findall(r"^  \[/(\^.*\$)/, \(", source, re.MULTILINE)
    paths = {
        **views(known),
        "trace": f"/ui/events/{known['event']}?tab=trace",
        "timeline": f"/ui/runs/{known['adding']}?tab=timeline",
    }
    places = [
        each.partition("?")[0].removeprefix("/ui").rstrip("/") or "/" for each in paths.values()
    ]
    for pattern in patterns:
        assert any(re.fullmatch(pattern.replace("\\/", "/"), each) for each in places), pattern
    assert len(patterns) > 20
    other = browse()
    tab.open("/ui/account")
    other.open("/ui/account")
    for name, path in paths.items():
        tab.move(path)
        choose(tab)
        address = tab.page.url.removeprefix(tab.url)
        other.open(address)
        expected = tab.evaluate(STATE)
        until_equal(partial(other.evaluate, STATE), expected, (name, address))


def test_with_colours_of_the_system_alone_it_says_the_same(tab, known):
    """Forced colours, dark: what is chosen differs, bars and shapes are drawn, text is legible."""
    tab.emulate_media(forced_colors="active", color_scheme="dark")
    try:
        tab.open("/ui/runs?state=failed")
        chips = tab.locator("button.chip")
        back = "each => each.map(chip => getComputedStyle(chip).backgroundColor)"
        chosen = chips.evaluate_all("each => each.map(chip => chip.ariaPressed)")
        backs = dict(zip(chosen, chips.evaluate_all(back), strict=True))
        cross = tab.locator("button.chip[aria-pressed=true] .shape")
        drawn = "part => [...part.children].map(each => getComputedStyle(each))"
        ring, path = cross.evaluate(
            f"part => ({drawn})(part).map(each => [each.fill, each.stroke])"
        )
        assert ring[0] != path[1]  # the cross is seen on its disc
        assert backs["true"] != backs["false"]
        for name, path in (
            ("forced-runs", "/ui/runs?state=failed"),
            ("forced-grid", "/ui/dags/load?tab=grid"),
            ("forced-timeline", f"/ui/runs/{known['adding']}?tab=timeline"),
            ("forced-now", "/ui/"),
        ):
            tab.move(path)
            assert tab.faults("color-contrast") == [], name
            # What is drawn is not of the colour of what it is drawn on.
            drawn = "each => each.map(part => [getComputedStyle(part).backgroundColor, 'none'])"
            under = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert [under, "none"] not in tab.locator(".beam.run").evaluate_all(drawn), name
            assert all(tab.locator(".state").evaluate_all("all => all.map(each => each.innerText)"))
            tab.shoot(name)
    finally:
        tab.emulate_media(forced_colors="none", color_scheme="light")


def test_ten_tabs_are_live_at_once(browse, api):
    """By one stream for all of them: a browser has six connections to a server."""
    tabs = [browse()]
    context = tabs[0].context
    tabs += [browse(context=context) for _ in range(9)]
    for each in tabs:
        each.open("/ui/runs?dag=load")
    run_id = api.start("load", flag="/nowhere", rows=1, wait=False)
    for each in tabs:
        row = each.locator(f'tr:has(a[href="/ui/runs/{run_id}"])')
        expect(row).to_contain_text("failed")


def test_text_is_found_anywhere_in_output_that_is_too_long_for_a_browser(tab, api):
    """Ctrl F, next, previous, from the last to the first; lines that were not loaded are."""
    run_id = api.start("writes")
    tab.open(f"/ui/runs/{run_id}/tasks/much")
    output = tab.get_by_role("region", name="Output of the task")
    expect(output).to_contain_text("row 24999")  # the end first
    assert output.locator(".numbered").count() < 200
    tab.keyboard.press("Control+f")
    box = tab.get_by_role("searchbox", name="Find")
    expect(box).to_be_focused()
    tab.keyboard.type("needle")
    tab.keyboard.press("Enter")
    said = tab.get_by_role("search").get_by_role("status")
    marked = output.locator(".marked")
    for keys, place, line in (
        ((), 1, 0),
        (["Enter"], 2, 10_000),
        (["Enter"], 3, 20_000),
        (["Enter"], 1, 0),
        (["Shift+Enter"], 3, 20_000),
        (["Shift+Enter"], 2, 10_000),
    ):
        for key in keys:
            tab.keyboard.press(key)
        expect(said).to_have_text(f"{place} of 3 lines")
        expect(marked).to_contain_text(f"row {line}: a Needle")
        expect(marked).to_be_in_viewport()
    address = tab.page.url.removeprefix(tab.url)
    assert "find=needle" in address
    assert "line=10000" in address
    tab.open("/ui/runs")
    tab.open(address)
    expect(marked).to_contain_text("row 10000: a Needle")
    expect(said).to_have_text("2 of 3 lines")
    output.focus()
    top = output.locator(".l").first
    tab.keyboard.press("Home")
    expect(top).to_contain_text("row 0: a Needle")
    tab.keyboard.press("PageDown")
    expect(top).not_to_contain_text("row 0: a Needle")
    tab.keyboard.press("End")
    expect(output).to_contain_text("row 24999")
    tab.open(address)
    expect(said).to_have_text("2 of 3 lines")
    tab.look("output-long")
    box.fill("nowhere")
    box.press("Enter")
    expect(said).to_have_text("No line has it.")


def test_colours_are_chosen_and_kept(tab):
    tab.open("/ui/runs")
    back = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(back)
    tab.get_by_role("combobox", name="Colours").select_option("dark")
    assert tab.evaluate(back) != before
    tab.open("/ui/dags")
    assert tab.evaluate(back) != before


def test_without_a_session_it_shows_nothing_and_a_viewer_changes_nothing(browse, api, url):
    """The last one: from the first token on the daemon needs one."""
    tokens = {
        role: api("tokens", {"name": f"the-{role}", "role": role})["token"] for role in ["admin"]
    }
    admin = {"token": tokens["admin"]}
    viewer = api("tokens", {"name": "the-viewer", "role": "viewer"}, **admin)["token"]
    tab = browse()
    tab.expected = "status of 401"  # the browser itself writes refusals to its console
    tab.page.goto(f"{url}/ui/runs")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert tab.faults() == []
    assert tab.get_by_role("table").count() == 0
    tab.get_by_label("Or with a token").fill("psf_wrong")
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.get_by_role("alert")).to_contain_text("this token is unknown")
    tab.get_by_label("Or with a token").fill(viewer)
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Runs")
    assert tab.evaluate("document.cookie") == ""
    assert viewer not in tab.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    tab.open("/ui/dags/load")
    tab.get_by_role("button", name="Pause").click()
    dialog = tab.get_by_role("dialog")
    expect(dialog).to_contain_text("This needs the role operator; yours is viewer.")
    expect(dialog.get_by_role("button", name="Pause")).to_be_disabled()
    tab.keyboard.press("Escape")
    tab.open("/ui/account")
    expect(tab.get_by_role("table", name="Sessions")).to_contain_text("the-viewer (here)")
    tab.get_by_role("button", name="Sign out").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Sign in")
    body = {"name": "the-loader", "role": "viewer", "grants": ["operator:dag=load"]}
    tab.get_by_label("Or with a token").fill(api("tokens", body, **admin)["token"])
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Account")
    for dag, enough in (("load", True), ("report", False)):
        tab.open(f"/ui/dags/{dag}")
        tab.get_by_role("button", name="Pause").click()
        button = dialog.get_by_role("button", name="Pause")
        expect(button).to_be_enabled() if enough else expect(button).to_be_disabled()
    expect(dialog).to_contain_text("This needs the role operator on report; yours there is viewer.")
    link = api("session/links", {}, **admin)
    other = browse()
    other.expected = "status of 401"
    other.page.goto(url + link["path"])
    expect(other.get_by_role("heading", level=1)).to_have_text("Now")
    assert "psf_" not in other.page.url
    expect(other.get_by_role("link", name="the-admin")).to_be_visible()
    (session,) = [each for each in api("sessions", **admin)["items"] if "admin" in each["name"]]
    api(f"sessions/{session['id']}", method="DELETE", **admin)
    other.get_by_role("link", name="DAGs").click()
    expect(other.get_by_role("heading", level=1)).to_have_text("Sign in")
