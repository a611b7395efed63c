"""What people do on the page; what it shows as a command and as curl does the same."""

import json
import os
import re
import shlex
import signal
from functools import cache
from pathlib import Path

import anyio.from_thread
import msgspec
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from support.oidc import CLIENT, SECRET, tricky_provider

DAGS = Path(__file__).with_name("dags")
expect = pytest.importorskip("playwright.sync_api").expect


def written(place):
    """Return the command and the request that a place shows."""
    place.get_by_text("The same as a command").last.click()
    codes = place.locator(".same[open] code")
    expect(codes).to_have_count(2)
    command, request = codes.all_inner_texts()
    return shlex.split(command), shlex.split(request)


def send_as_curl(api, words):
    """Send what a curl command says, without curl."""
    method, body, url = "GET", None, None
    words = iter(words[1:])
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-d":
            body = json.loads(next(words))
        elif word == "-H":
            next(words)
        else:
            url = word
    assert url.startswith(f"{api.url}/api/v1/")
    return api(url.removeprefix(f"{api.url}/api/v1/"), body, method=method)


@pytest.fixture
def cli(commands, api, home):
    def run(words):
        assert words[0] == "pubsubflow"
        answer = commands.call(*words[1:], PUBSUBFLOW_SERVER=api.url, PUBSUBFLOW__HOME=str(home))
        assert answer.code == 0, answer.err
        return answer.out

    return run


def facts(backfill):
    names = ("dag_id", "from", "to", "planned", "newest_first", "reprocess", "max_active_runs")
    return {name: backfill[name] for name in (*names, "params", "description")}


def test_a_backfill_says_what_it_would_run_and_goes_on_live(tab, api, cli):
    """The plan first, by the server; its progress; and the same by command and by curl."""
    tab.open("/ui/past")
    tab.get_by_label("DAG", exact=True).fill("t_books")
    tab.get_by_label("DAG", exact=True).press("Enter")
    expect(tab.get_by_text("Choose where it begins")).to_be_visible()
    tab.get_by_label("From (UTC)").fill("2026-01-03T00:00")
    tab.get_by_label("To (UTC)").fill("2026-01-06T00:00")
    tab.get_by_label("To (UTC)").press("Tab")
    plan = tab.get_by_role("region", name="What would run")
    expect(plan).to_contain_text("3 runs would start")
    expect(plan).to_contain_text("from 2026-01-03 02:00 UTC to 2026-01-05 02:00 UTC")
    tab.get_by_label("The newest first").check()
    tab.get_by_label("How many at once").fill("2")
    tab.get_by_label("How many at once").press("Tab")
    expect(plan).to_contain_text("from 2026-01-05 02:00 UTC to 2026-01-03 02:00 UTC")
    shown = tab.page.url
    plan.get_by_role("button", name="Start the backfill").click()
    dialog = tab.get_by_role("dialog")
    expect(dialog).to_contain_text("t_books: 3 planned")
    dialog.get_by_role("button", name="Start the backfill").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Backfill of t_books")
    expect(tab.locator(".heading .state")).to_have_text("completed")
    expect(tab.locator(".progress")).to_contain_text("3 succeeded of 3")
    expect(tab.get_by_role("table", name="Plan")).to_contain_text("2026-01-04 02:00 UTC")
    (made,) = api("backfills?dag=t_books")["items"]
    # The address restores the choice, whose runs exist by now.
    tab.open(shown.removeprefix(tab.url))
    expect(plan).to_contain_text("0 runs would start")
    expect(plan).to_contain_text("3 exist already")
    expect(plan.get_by_role("button", name="Start the backfill")).to_be_disabled()
    tab.get_by_label("all, also those that exist").check()
    expect(plan).to_contain_text("3 runs would start")
    command, request = written(plan)
    cli(command)
    send_as_curl(api, request)
    third, second, first = api("backfills?dag=t_books")["items"]
    assert facts(third) == facts(second) == {**facts(first), "reprocess": "all"}
    assert first["backfill_id"] == made["backfill_id"]


def test_a_backfill_is_paused_resumed_and_cancelled(tab, api):
    days = {"from": "2026-02-01T00:00:00Z", "to": "2026-03-01T00:00:00Z", "max_active_runs": 2}
    made = api("dags/t_slowly/backfill", days)
    tab.open(f"/ui/past/{made['backfill_id']}")
    expect(tab.locator(".progress")).to_contain_text("2 running, 26 to come of 28")
    for verb, state in (("Pause", "paused"), ("Resume", "running"), ("Cancel", "cancelled")):
        tab.get_by_role("button", name=verb).click()
        if verb == "Cancel":
            tab.get_by_label("Also cancel the 2 runs that have not ended").check()
        tab.get_by_role("dialog").get_by_role("button", name=re.compile(f"^{verb}")).click()
        expect(tab.locator(".heading .state")).to_have_text(state)
    tab.open("/ui/past")
    row = tab.get_by_role("table", name="Backfills").get_by_role("row").nth(1)
    expect(row).to_contain_text("2 cancelled, 26 to come of 28")


def test_events_of_the_past_are_replayed(tab, api, cli):
    api("datasets/events", {"dataset": "s3://shop/clicks", "partition": "2026-03-01"})
    api.until("runs?dag=t_by_day", lambda found: len(found["items"]) == 1)
    tab.open("/ui/past?kind=replay&from=2026-01-01T00:00:00Z")
    tab.get_by_label("Dataset").fill("s3://shop/clicks")
    tab.get_by_label("Dataset").press("Enter")
    plan = tab.get_by_role("region", name="What would run")
    expect(plan).to_contain_text("0 runs would start")
    expect(plan.get_by_role("table")).to_contain_text("2026-03-01")
    tab.get_by_label("Also runs that exist").check()
    expect(plan).to_contain_text("1 run would start")
    command, request = written(plan)
    assert "t_by_day: started 1 run" in cli(command)
    send_as_curl(api, request)
    plan.get_by_role("button", name="Start the replay").click()
    tab.get_by_role("dialog").get_by_role("button", name="Start the replay").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Runs")
    expect(tab.get_by_role("table", name="Runs").get_by_role("row")).to_have_count(4)


def test_a_schedule_is_tried_out_on_events_that_never_were(tab, api, cli):
    """By the manager's code; the list beside the drawing says the same, and the address all."""
    tab.open("/ui/dags/add_up")
    tab.get_by_role("link", name="Simulate it").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Simulator")
    expect(tab.get_by_label("Schedule, as in a DAG file")).to_have_value(
        "Dataset('s3://shop/orders') & "
        "Dataset('s3://shop/customers').where('event.extra.rows > 0')",
    )
    form = tab.get_by_role("form", name="Add an event")
    happens = tab.get_by_role("table", name="What happens")
    for dataset, time, extra in (
        ("s3://shop/orders", "09:00", ""),
        ("s3://shop/customers", "09:30", '{"rows": 0}'),
        ("s3://shop/customers", "10:00", '{"rows": 2}'),
    ):
        form.get_by_label("Dataset").fill(dataset)
        form.get_by_label("At (UTC)").fill(f"2026-11-20T{time}")
        form.get_by_label("Extra, as JSON").fill(extra)
        form.get_by_role("button", name="Add").click()
        expect(happens).to_contain_text(time)
    expect(happens.get_by_role("row", name=re.compile("09:30"))).to_contain_text("filtered")
    run = happens.get_by_role("row", name=re.compile("Run 1 starts"))
    expect(run).to_contain_text("s3://shop/customers was updated")
    expect(run).to_contain_text("consumes orders of 09:00, customers of 10:00")
    expect(tab.get_by_role("img", name="Events of 2 datasets, and 1 runs")).to_be_visible()
    then = tab.get_by_role("region", name="Why at a moment")
    expect(then).to_contain_text("1 run has started by then")
    then.get_by_role("slider").fill(str(1795167900000))  # 09:45
    expect(then).to_contain_text("0 runs have started by then")
    expect(then).to_contain_text("waits for s3://shop/customers")
    address = tab.page.url
    command, request = written(tab.get_by_role("region", name="What would happen"))
    assert "consumes" in cli(command)
    answer = send_as_curl(api, request)
    assert [run["events"] for run in answer["runs"]] == [[0, 2]]
    tab.open(address.removeprefix(tab.url))
    expect(then).to_contain_text("0 runs have started by then")
    # What would start it, tried at once.
    then.get_by_role("button", name="Add an event of s3://shop/customers").click()
    added = happens.get_by_role("row", name=re.compile("09:45"))
    expect(added).to_contain_text("s3://shop/customers")
    tab.get_by_label("Schedule, as in a DAG file").fill("open('/etc/passwd')")
    tab.get_by_label("Schedule, as in a DAG file").press("Tab")
    fault = "line 1: open() is unknown"
    expect(tab.get_by_role("alert").first).to_contain_text(fault)
    tab.expected = "status of 422"


def test_a_run_is_started_by_a_form_of_all_kinds_of_params(tab, api, cli):
    """Of the schema; presets, tags and a partition beside it; and it is run again with changes."""
    tab.open("/ui/dags/t_rich")
    tab.get_by_role("button", name="Start").click()
    dialog = tab.get_by_role("dialog", name="Start t_rich")
    dialog.get_by_label("Preset").select_option("poland")
    expect(dialog.get_by_label("rows")).to_have_value("3")
    dialog.get_by_label("day").fill("2026-11-21")
    dialog.get_by_label("de", exact=True).check()
    dialog.get_by_label("names").fill("ann\nbob")
    dialog.get_by_label("strict").check()
    dialog.get_by_label("code").fill("nonsense")
    expect(dialog).to_contain_text("code does not match")
    dialog.get_by_label("code").fill("B2")
    dialog.get_by_label("more").fill('{"deep": [1]}')
    dialog.get_by_text("Partition, logical time and tags").click()
    dialog.get_by_label("Partition").fill("eu")
    dialog.get_by_label("Tags").fill("urgent")
    command, request = written(dialog)
    dialog.get_by_role("button", name="Start", exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run of t_rich")
    cli(command)
    send_as_curl(api, request)
    third, second, first = api("runs?dag=t_rich")["items"]
    expected = {"day": "2026-11-21", "share": 0.5, "shops": ["pl", "de"], "names": ["ann", "bob"]}
    expected |= {"limits": {"rows": 3, "strict": True}, "code": "B2", "more": {"deep": [1]}}
    for run in (first, second, third):
        assert (run["params"], run["partition"], run["tags"]) == (expected, "eu", ["urgent"])
    tab.get_by_role("button", name="Run again").click()
    dialog = tab.get_by_role("dialog", name="Run t_rich again")
    dialog.get_by_label("share").fill("0.75")
    dialog.get_by_role("button", name="Start", exact=True).click()
    api.until("runs?dag=t_rich", lambda found: len(found["items"]) == 4)
    assert api("runs?dag=t_rich")["items"][0]["params"] == {**expected, "share": 0.75}
    tab.get_by_role("button", name="Note").click()
    tab.get_by_role("dialog").get_by_label("Note").fill("as ann said")
    tab.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(tab.locator("main > .facts")).to_contain_text("as ann said")


def test_many_runs_are_acted_on_by_selection_and_by_filter(tab, api, cli, commands):
    """What is planned is what is changed; the plan is also the command's."""
    failed = [api.start("t_load", flag="/nowhere", rows=1) for _ in range(3)]
    tab.open("/ui/runs?dag=t_load&state=failed")
    table = tab.get_by_role("table", name="Runs")
    bar = tab.get_by_role("group", name="Actions on many runs")
    expect(bar.get_by_role("button", name="Retry")).to_be_disabled()
    tab.get_by_role("checkbox", name=f"Select {failed[0]}").focus()
    tab.keyboard.press("x")
    tab.keyboard.press("k")  # the one above it
    tab.keyboard.press("x")
    expect(bar).to_contain_text("2 selected")
    bar.get_by_role("button", name="Clear").click()
    dialog = tab.get_by_role("dialog", name="Clear the selected runs")
    expect(dialog).to_contain_text("2 runs: 6 tasks run again")
    command, request = written(dialog)
    dialog.get_by_label("Only tasks that failed or could not start").check()
    expect(dialog).to_contain_text("2 runs: 4 tasks run again")
    dialog.get_by_role("button", name="Clear 2 runs").click()
    expect(tab.get_by_role("status").filter(has_text="2 runs cleared.")).to_be_visible()
    for run_id in failed:
        api(f"runs/{run_id}/wait?timeout=30")
    cleared = [api(f"runs/{run_id}")["cleared"] for run_id in failed]
    assert cleared == [1, 1, 0]
    # The plan of before does not fit any more: its fence leaves both runs as they are.
    plan, words = command[1], command[command.index("|") + 1 :]
    answer = commands.call(*words[1:], typed=plan, PUBSUBFLOW_SERVER=api.url)
    assert (answer.code, "2 left" in answer.out) == (1, True), answer
    assert send_as_curl(api, request)["counts"] == {"left": 2}
    tab.open("/ui/runs?dag=t_load&state=failed")
    bar.get_by_label("All that the filter takes").check()
    bar.get_by_role("button", name="Mark").click()
    dialog = tab.get_by_role("dialog", name="Mark all runs of the filter")
    expect(dialog.get_by_role("region", name="What would happen")).to_contain_text("runs: ")
    command, _ = written(dialog)
    assert "marked" in cli(command)
    expect(table.get_by_role("row", name=re.compile("failed"))).to_have_count(0)


def test_what_was_chosen_stays_chosen_while_rows_leave_the_list(tab, api, cli):
    """Somebody else settles a run whose dialog is open: the dialog is about it still."""
    _, gone = (api.start("t_load", flag="/nowhere", rows=1) for _ in range(2))
    tab.open("/ui/runs?dag=t_load&state=failed")
    tab.get_by_role("checkbox", name=f"Select {gone}").check()
    bar = tab.get_by_role("group", name="Actions on many runs")
    bar.get_by_role("button", name="Retry").click()
    dialog = tab.get_by_role("dialog", name="Retry the selected runs")
    button = dialog.get_by_role("button", name="Retry 1 run")
    expect(button).to_be_enabled()
    cli(["pubsubflow", "runs", "mark", "success", gone])
    expect(tab.locator("tbody tr", has_text=gone[-8:])).to_have_count(0)
    button.click()
    expect(tab.get_by_role("status").filter(has_text="0 runs retried, 1 left: ")).to_be_visible()


def test_tasks_of_many_runs_are_marked_together(tab, api):
    runs = [api.start("t_load", flag="/nowhere", rows=1) for _ in range(2)]
    tab.open("/ui/tasks?dag=t_load&state=failed&task=read")
    for run_id in runs:
        tab.get_by_role("checkbox", name=f"Select {run_id}.read").check()
    bar = tab.get_by_role("group", name="Actions on many tasks")
    bar.get_by_role("button", name="Mark").click()
    dialog = tab.get_by_role("dialog", name="Mark the selected tasks")
    expect(dialog).to_contain_text("2 runs: 2 tasks are marked")
    dialog.get_by_role("button", name="Mark 2 tasks").click()
    expect(tab.get_by_role("status").filter(has_text="2 tasks marked as success.")).to_be_visible()
    for run_id in runs:
        assert api(f"runs/{run_id}/wait?timeout=30")["state"] == "success"


def test_from_an_event_to_the_output_of_a_task(tab):
    """Post an event, see what became of it, follow it to its run, task and output."""
    tab.open("/ui/events")
    tab.get_by_role("button", name="Post an event").click()
    dialog = tab.get_by_role("dialog", name="Post an event")
    dialog.get_by_label("Dataset").fill("s3://shop/customers")
    extra = dialog.get_by_label("Extra")
    extra.fill("{")
    expect(dialog.get_by_role("button", name="Post", exact=True)).to_be_disabled()
    extra.fill('{"rows": 4}')
    dialog.get_by_text("The same as a command").click()
    command = "pubsubflow datasets emit s3://shop/customers --extra '{\"rows\":4}'"
    expect(dialog.get_by_text(command)).to_be_visible()
    dialog.get_by_role("button", name="Post", exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Event of s3://shop/customers")
    outcomes = tab.get_by_role("table", name="What became of it, by DAG")
    row = outcomes.get_by_role("row", name=re.compile("add_up"))
    expect(row).to_contain_text(re.compile("pending|consumed"))
    if "pending" in row.inner_text():
        tab.get_by_role("link", name="add_up").click()
        tab.get_by_role("button", name="Post it").first.click()
        tab.get_by_role("dialog").get_by_role("button", name="Post", exact=True).click()
        expect(tab.get_by_role("heading", level=1)).to_have_text("Event of s3://shop/orders")
        row = outcomes.get_by_role("row", name=re.compile("add_up"))
    # Live: nothing is loaded anew by hand.
    expect(row).to_contain_text("success")
    row.get_by_role("link", name="success").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run of add_up")
    tab.get_by_role("link", name="fetch", exact=True).click()
    output = tab.get_by_role("region", name="Output of the task")
    expect(output).to_contain_text("fetching orders")  # without the colours of a terminal
    expect(output).to_contain_text("orders.fetched level=info rows=3")
    tab.get_by_role("link", name="Result").click()
    expect(tab.get_by_role("region", name="the result")).to_contain_text("1,")


def test_a_run_is_started_fails_and_is_cleared(tab, tmp_path):
    """By a form made of its params; its error is seen at once; clearing says what runs again."""
    flag = tmp_path / "flag"
    tab.open("/ui/dags")
    row = tab.get_by_role("row", name=re.compile(r"^load\b"))
    row.get_by_role("button", name="Start").click()
    dialog = tab.get_by_role("dialog", name="Start load")
    dialog.get_by_label("flag").fill(str(flag))
    dialog.get_by_label("rows").fill("11")
    dialog.get_by_label("mode").select_option("slow")
    dialog.get_by_role("button", name="Start").click()
    expect(dialog).to_be_visible()  # 11 is more than the schema allows
    dialog.get_by_label("rows").fill("2")
    dialog.get_by_role("button", name="Start").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run of load")
    tasks = tab.get_by_role("table", name="Tasks")
    expect(tasks).to_contain_text(f"FileNotFoundError: {flag} is not there")
    expect(tasks.get_by_role("row", name=re.compile("store"))).to_contain_text("upstream failed")
    tasks.get_by_role("link", name="read").click()
    expect(tab.get_by_role("region", name="Traceback")).to_contain_text("pages.py")
    expect(tab.get_by_role("region", name="Output of the task")).to_contain_text("row 1")
    flag.touch()
    tab.get_by_role("button", name="Clear").click()
    dialog = tab.get_by_role("dialog", name="Clear read")
    expect(dialog).to_contain_text("2 tasks run again")
    dialog.get_by_label("Also all tasks downstream of it").uncheck()
    expect(dialog).to_contain_text(re.compile("1 task runs again|2 tasks run again"))
    dialog.get_by_label("Also all tasks downstream of it").check()
    expect(dialog).to_contain_text("2 tasks run again")
    dialog.get_by_role("button", name="Clear").click()
    expect(tab.get_by_role("status").filter(has_text="2 tasks run again.")).to_be_visible()
    tab.get_by_role("navigation", name="Views")
    expect(tab.locator(".heading .state")).to_have_text("success")
    tab.get_by_role("button", name=re.compile("Attempt 1")).click()
    expect(tab.get_by_role("region", name="Error")).to_contain_text("FileNotFoundError")


def test_why_a_dag_has_not_run(tab, api):
    """The condition as a tree, what is pending, what would start it; it follows what happens."""
    api.until("dags/report/why-not", lambda found: not found["active_runs"])
    tab.open("/ui/dags/report")
    tree = tab.get_by_role("list", name="The condition")
    expect(tree).to_contain_text("waits")
    expect(tree).to_contain_text("none pending")
    panel = tab.locator("section", has_text="What would start it now").last
    expect(panel).to_contain_text("1 event of s3://shop/totals")
    before = len(api("runs?dag=report")["items"])
    tab.get_by_role("button", name="Post it").click()
    tab.get_by_role("dialog").get_by_role("button", name="Post", exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Event of s3://shop/totals")
    api.until("runs?dag=report", lambda found: len(found["items"]) > before)


def test_a_dag_is_paused_and_unpaused(tab, api):
    tab.open("/ui/dags/sleeps")
    tab.get_by_role("button", name="Pause").click()
    tab.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(tab.get_by_role("button", name="Unpause")).to_be_visible()
    assert api("dags/sleeps")["paused"]
    tab.get_by_role("button", name="Unpause").click()
    tab.get_by_role("dialog").get_by_role("button", name="Unpause").click()
    expect(tab.get_by_role("button", name="Pause", exact=True)).to_be_visible()


@pytest.fixture(scope="module")
def kill(home, url):
    """Kill the daemon of these tests, if it was not yet."""

    @cache
    def once():
        os.kill(msgspec.json.decode((home / "owner").read_bytes())["pid"], signal.SIGKILL)

    return once


def test_a_daemon_that_is_killed_and_started_is_followed_again(tab, api, home, url, kill):
    """Nothing is loaded anew by hand, and what happened meanwhile is there."""
    tab.expected = "ERR_"  # the browser itself writes lost connections to its console
    api.post("s3://shop/totals")
    api.until(
        "runs?dag=report", lambda found: {each["state"] for each in found["items"]} == {"success"}
    )
    before = len(api("runs?dag=report")["items"])
    tab.open("/ui/runs?dag=report")
    rows = tab.get_by_role("table", name="Runs").get_by_role("row")
    expect(rows).to_have_count(before + 1)
    kill()
    lost = tab.get_by_role("status").filter(has_text="No connection since")
    expect(lost).to_be_visible()
    with child_daemon(DAGS, home=home, port=int(url.rpartition(":")[2])):
        api.post("s3://shop/totals")
        expect(rows).to_have_count(before + 2)
        expect(rows.nth(1)).to_contain_text("success")
        expect(lost).to_have_count(0)
        tab.check()


@pytest.fixture
def provider(monkeypatch):
    """A provider of OpenID Connect, at which daemons let people sign in from now on."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(tricky_provider()) as provider,
    ):
        roles = "viewer:dag=add_up,operator:dag=t_load,viewer:dataset=s3://shop/*"
        settings = {"issuer": provider.url, "client_id": CLIENT, "client_secret": SECRET}
        for name, value in {**settings, "name": "Home", "roles__sales": roles}.items():
            monkeypatch.setenv(f"PUBSUBFLOW__OIDC__{name}".upper(), value)
        yield provider


def test_a_person_signs_in_at_a_provider_and_sees_what_they_may(browse, home, url, kill, provider):
    """By clicks, there and back; on views of the whole system they read why they see nothing."""
    kill()
    with child_daemon(DAGS, home=home, port=int(url.rpartition(":")[2])):
        tab = browse()
        tab.expected = "status of 40"  # the browser itself writes refusals to its console
        tab.page.goto(f"{url}/ui/dags?paused=true")
        heading = tab.get_by_role("heading", level=1)
        expect(heading).to_have_text("Sign in")
        tab.get_by_role("link", name="Sign in with Home").click()
        expect(heading).to_have_text("DAGs")
        expect(tab.page).to_have_url(f"{url}/ui/dags?paused=true")
        expect(tab.get_by_role("link", name="oidc:alice@example.org")).to_be_visible()
        tab.move("/ui/dags")
        names = tab.get_by_role("table", name="DAGs").locator("tbody td a[href^='/ui/dags/']")
        expect(names).to_have_text(["add_up", "t_load"])
        for dag, may in (("add_up", False), ("t_load", True)):
            tab.move(f"/ui/dags/{dag}")
            tab.get_by_role("button", name="Start").click()
            button = tab.get_by_role("dialog").get_by_role("button", name="Start", exact=True)
            expect(button).to_be_enabled() if may else expect(button).to_be_disabled()
            tab.keyboard.press("Escape")
        for part in ("", "/pools", "/connections", "/variables", "/access"):
            tab.move(f"/ui/system{part}")
            expect(tab.locator("main")).to_contain_text(
                "about the whole system, not about some DAGs"
            )
        tab.move("/ui/system/intake")
        expect(tab.get_by_role("region", name="Webhooks")).to_contain_text("that you may see")
        expect(tab.get_by_role("region", name="Subscriptions")).to_contain_text("needs the role")
        tab.move("/ui/system/access")
        tab.get_by_role("link", name="Go to the alerts").click()
        expect(tab.get_by_text("No alert is open.")).to_be_visible()
        tab.move("/ui/datasets/s3%3A%2F%2Fshop%2Forders?tab=graph")
        around = tab.get_by_role("region", name="What is around s3://shop/orders")
        expect(around).to_contain_text("add_up")
        expect(around).to_contain_text("s3://shop/totals")
        expect(around).not_to_contain_text(re.compile("strict|report"))
        for path in ("", "/runs", "/tasks", "/events", "/waits", "/approvals", "/letters", "/past"):
            tab.move(f"/ui{path}")
            assert tab.get_by_role("alert").all_inner_texts() == [], path
        tab.move("/ui/account")
        tab.get_by_role("button", name="Sign out").click()
        expect(tab.page).to_have_url(re.compile(f"^{provider.url}/end"))
        tab.page.goto(f"{url}/ui/runs")
        expect(heading).to_have_text("Sign in")
