"""Params, retries, teardowns and waits for the previous run on a running daemon."""


def tasks_of(psf, run: str) -> dict[str, dict]:
    return {each["task_id"]: each for each in psf("tasks", "list", run, "--json").json}


def started(psf, *arguments) -> str:
    return psf("dags", "trigger", *arguments, "--json").json["run_id"]


def test_params_are_checked_before_a_run_exists(psf):
    for wrong, says in [
        ((), "'day' must be given"),
        (("-p", "day=2026-02-30"), "not a date"),
        (("-p", "day=2026-11-20", "-p", "mode=slow"), "not one of"),
    ]:
        refused = psf("dags", "trigger", "with_params", *wrong)
        assert refused.code == 2
        assert says in refused.err
    run = started(psf, "with_params", "-p", "day=2026-11-20", "-p", "rows=7", "-p", "mode=full")
    assert psf("runs", "wait", run).code == 0
    shown = psf("tasks", "show", run, "show", "--json").json
    assert shown["result"] == ["2026-11-20", 7, "full"]
    text = psf("dags", "show", "with_params").out
    assert "day = (required)" in text
    assert 'mode = "fast"' in text


def test_what_a_task_raises_decides_what_follows(psf):
    run = started(psf, "with_retries")
    assert psf("runs", "wait", run).code == 1
    found = tasks_of(psf, run)
    ends = {name: (each["state"], each["attempt"]) for name, each in found.items()}
    state, attempts = ends.pop("slow")  # the second one may be over its time, too
    assert (state, attempts > 1) == ("success", True)
    assert ends == {
        "refused": ("failed", 1),
        "polite": ("success", 2),
        "nothing": ("skipped", 1),
        "hopeless": ("failed", 1),
    }
    assert "not retried: ValueError is not in on=" in psf("tasks", "show", run, "refused").out
    assert "nothing new" in psf("tasks", "show", run, "nothing").out
    assert "the key is not valid" in psf("tasks", "show", run, "hopeless").out


def test_a_teardown_runs_whatever_happened_and_is_cleared_with_its_task(psf):
    run = started(psf, "with_teardown")
    assert psf("runs", "wait", run).code == 1
    states = {name: each["state"] for name, each in tasks_of(psf, run).items()}
    assert states == {
        "make": "success",
        "choose": "success",
        "used.work": "failed",
        "unused.other": "skipped",
        "drop": "success",
    }
    cleared = psf("tasks", "clear", run, "used.work", "--dry-run").out
    assert [name for name in states if name in cleared] == ["make", "used.work", "drop"]


def test_a_task_waits_for_the_run_before(psf):
    for name, fails in (("one", "true"), ("two", "false")):
        extra = f'{{"name":"{name}","fails":{fails}}}'
        assert psf("datasets", "emit", "s3://lake/ledger", "--extra", extra).code == 0
    runs = psf("runs", "list", "--dag", "with_past", "--json").json
    second, first = (each["run_id"] for each in runs)
    assert psf("runs", "wait", first).code == 1
    assert f"task book waits for task book of run {first}" in psf("runs", "explain", second).out
    assert first in psf("tasks", "list", second).out
    assert psf("tasks", "clear", first, "book", "--yes").code == 0
    for run in (first, second):
        assert psf("runs", "wait", run).code == 0


def test_a_check_tells_what_has_no_meaning_here(psf, tmp_path):
    (tmp_path / "brought.py").write_text(
        "from pubsubflow import DAG, EmptyOperator\n"
        "with DAG('hello', default_args={'email': 'a@example.org'}, schedule='@daily'):\n"
        "    EmptyOperator(task_id='a')\n"
    )
    checked = psf("dags", "check", tmp_path)
    assert checked.code == 0
    assert "default_args: email= has no meaning here; write on_failure=" in checked.out
