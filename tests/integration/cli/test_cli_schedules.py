"""Schedules: why-not, outcomes of events, replay, backfill and dead letters."""

import json
import subprocess
import sys

import pytest

LEFT, RIGHT = "s3://waiting/left", "s3://waiting/right"
HOURS, ORDERS = "s3://waiting/hours", "s3://waiting/orders"


@pytest.fixture
def letter(psf):
    """A dead letter of a run whose params did not fit."""
    event = psf("datasets", "emit", ORDERS).out.strip()
    dead_letters = psf("dead-letters", "list", "--json").json
    return next(
        each["id"]
        for each in dead_letters
        if psf("dead-letters", "show", each["id"], "--json").json["payload"]["events"] == [event]
    )


def test_why_not_draws_the_condition_with_pending_events(psf):
    psf("datasets", "emit", LEFT, "-s", "rows=0")
    event = psf("datasets", "emit", RIGHT).out.strip()
    shown = psf("dags", "why-not", "waits")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == f"waits: it waits for {LEFT} and 1 more event of {RIGHT}"
    assert f"✗ waits  {LEFT}" in shown.out
    assert "1 of 2 pending, the oldest since" in shown.out
    assert "filtered in the last day; last reason: event.extra.rows > 0 is False" in shown.out
    assert event in shown.out
    facts = psf("dags", "why-not", "waits", "--json").json
    assert [place["missing"] for place in facts["inputs"]] == [1, 1]


def test_why_not_of_a_partition_names_the_missing_parts(psf):
    psf("datasets", "emit", HOURS, "--partition", "2026-11-20T00Z")
    whole = psf("dags", "why-not", "daily")
    assert "2026-11-20" in whole.out
    assert f"23 more parts of {HOURS}" in whole.out
    one = psf("dags", "why-not", "daily", "--partition", "2026-11-20")
    assert "1 of 24 parts have arrived; missing: 2026-11-20T01Z, 2026-11-20T02Z" in one.out


def test_events_show_their_outcomes(psf):
    event = psf("datasets", "emit", LEFT, "-s", "rows=0").out.strip()
    shown = psf("datasets", "events", "--fate", LEFT, "--limit", "1")
    assert event in shown.out
    assert "waits filtered: event.extra.rows > 0 is False" in shown.out
    (one,) = psf("datasets", "events", "--event", event, "--json").json
    assert [outcome["fate"] for outcome in one["fates"]] == ["filtered"]
    unread = psf("datasets", "emit", "s3://waiting/unread").out.strip()
    assert "no DAG subscribes to it" in psf("datasets", "events", "--event", unread).out


def test_a_dry_run_of_a_replay_starts_nothing_and_a_replay_nothing_twice(psf):
    psf("datasets", "emit", ORDERS, "-s", "rows=3")
    arguments = ("datasets", "replay", "--from", "-1h", "--dag", "fussy", "--dataset", ORDERS)
    dry = psf(*arguments, "--dry-run")
    assert dry.code == 0
    assert "would start" in dry.out
    assert json.loads(psf("datasets", "events", ORDERS, "--json").out)[0]["event_id"] in dry.out
    (planned,) = psf(*arguments, "--json").json
    assert any(run["exists"] for run in planned["runs"])
    again = psf("datasets", "replay", "--from", "now", "--dataset", ORDERS)
    none = "no event of its datasets was recorded in that time"
    assert again.out == f"fussy: started 0 runs: {none}\n"
    assert "no DAG subscribes" in psf(
        "datasets", "replay", "--from", "-1h", "--dataset", "s3://waiting/unread"
    ).out  # fmt: skip


def test_a_backfill_of_ticks_and_of_partitions(psf):
    ticks = ("dags", "backfill", "nightly", "--from", "2026-02-01", "--to", "2026-02-03")
    assert "would start 2 runs" in psf(*ticks, "--dry-run").out
    assert "started 2 runs" in psf(*ticks).out
    assert "started 0 runs; 2 exist already" in psf(*ticks).out
    assert "started 2 runs" in psf(*ticks, "--again").out
    keys = ("dags", "backfill", "daily", "--partition", "2026-02-01", "--partition", "2026-02-02")
    made = psf(*keys, "--json").json["runs"]
    assert [run["partition"] for run in made] == ["2026-02-01", "2026-02-02"]
    assert psf("runs", "wait", made[0]["run_id"], "--timeout", "60").code == 0
    explained = psf("runs", "explain", made[0]["run_id"]).out
    assert "success partition 2026-02-01" in explained
    assert "backfill of partition 2026-02-01" in explained
    run_id = psf("dags", "trigger", "nightly", "--partition", "eu").out.strip()
    assert psf("runs", "show", run_id, "--json").json["partition"] == "eu"


def test_a_dead_letter_is_edited_in_the_editor(psf, letter, tmp_path):
    shown = psf("dead-letters", "show", letter)
    assert '"dag_id": "fussy"' in shown.out
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        'file.write_text(file.read_text().replace(\'"params": null\', \'"params": {"rows": 9}\'))\n'
    )
    idle = psf("dead-letters", "edit", letter, EDITOR="true")
    assert (idle.code, idle.out) == (0, "the payload is unchanged, so nothing was sent\n")
    sent = psf("dead-letters", "edit", letter, EDITOR=f"{sys.executable} {editor}")
    assert sent.code == 0, sent.err
    run_id = sent.out.split()[-1]
    assert psf("runs", "show", run_id, "--json").json["params"] == {"rows": 9}
    assert psf("dead-letters", "resend", letter).code == 2
    listed = psf("dead-letters", "list", "--all", "--limit", "1000").out
    assert any(line.startswith(f"{letter} ") for line in listed.splitlines())


def test_a_dead_letter_is_edited_from_a_file_or_stdin(psf, letter, daemon_url, tmp_path):
    payload = psf("dead-letters", "show", letter, "--json").json["payload"]
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert psf("dead-letters", "edit", letter, "--payload", broken).code == 2
    assert psf("dead-letters", "edit", letter, "--payload", tmp_path / "none").code == 2
    assert psf("dead-letters", "edit", letter, EDITOR="/no/editor").code == 2
    assert psf("dead-letters", "edit", letter, EDITOR="false").code == 2
    mended = json.dumps({**payload, "params": {"rows": 4}})
    arguments = ("dead-letters", "edit", str(letter), "--payload", "-", "--server", daemon_url)
    sent = subprocess.run(
        [sys.executable, "-m", "pubsubflow.cli.main", *arguments, "--json"],
        input=mended,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(sent.stdout)["run_id"]


def test_a_dead_letter_resent_in_vain_names_its_successor(psf, letter):
    answer = psf("dead-letters", "resend", letter)
    assert answer.code == 1
    assert "refused again" in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dags", "why-not", "unread"], "no DAG named 'unread'"),
        (["dags", "why-not", "waits", "--partition", "x"], "has no partitions"),
        (["dags", "backfill", "waits", "--from", "-1h"], "name the partitions"),
        (["dags", "backfill", "nightly"], "name partitions"),
        (["dags", "backfill", "nightly", "--from", "yesterday"], "-2h"),
        (["datasets", "replay", "--from", "-1h"], "name a dataset"),
        (["datasets", "replay"], "--from"),
        (["datasets", "events", "--event", "x"], "event"),
        (["dead-letters", "show", "999999"], "no dead letter named '999999'"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(psf, arguments, says):
    answer = psf(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert says in answer.err
