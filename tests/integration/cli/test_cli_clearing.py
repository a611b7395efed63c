"""Retries, clearing and pools on a running daemon."""


def test_a_run_is_retried_and_cleared(psf):
    run = psf("dags", "trigger", "broken", "--json").json["run_id"]
    assert psf("runs", "wait", run).code == 1
    shown = psf("runs", "retry", run, "--dry-run")
    assert shown.code == 0
    assert "1 would be cleared; the run is failed" in shown.out
    assert psf("runs", "retry", run, "--json").json["tasks"] == [
        {"task_id": "fail", "map_index": None, "state": "failed"}
    ]
    assert psf("runs", "wait", run).code == 1
    refused = psf("tasks", "clear", run, "fail")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert "fail" in psf("tasks", "clear", run, "fail", "--yes").out
    assert psf("runs", "wait", run).code == 1
    assert psf("runs", "clear", run, "--task", "other", "--yes").code == 2
    shown = psf("runs", "show", run)
    assert "cleared  2 times" in " ".join(shown.out.split("   "))
    assert psf("tasks", "list", run, "--json").json[0]["attempt"] == 3


def test_logs_of_earlier_attempts_are_kept(psf):
    run = psf("dags", "trigger", "first", "--json").json["run_id"]
    assert psf("runs", "wait", run).code == 0
    cleared = psf("runs", "clear", run, "--task", "each.1", "--task", "say", "--yes")
    assert cleared.out.splitlines()[-1] == "4 cleared; the run is running"
    assert psf("runs", "wait", run).code == 0
    for attempt in (1, 2):
        assert "line 1" in psf("tasks", "logs", run, "say", "--attempt", attempt).out


def test_a_graph_is_drawn_with_the_states_of_a_run(psf):
    run = psf("dags", "trigger", "first", "--json").json["run_id"]
    assert psf("runs", "wait", run).code == 0
    assert psf("dags", "graph", "first").out.splitlines()[1].split() == ["0", "say", "each"]
    lines = psf("dags", "graph", "first", "--format", "mermaid", "--run", run).out.splitlines()
    assert lines[:3] == [
        "flowchart LR",
        '    t0["say<br>success"]',
        '    t1["each<br>3 success"]',
    ]
    assert '    d1[("s3://lake/middle")]' in lines
    assert {"    t0 --> t1", "    d0 -.-> t0", "    t2 -.-> d1"} <= set(lines)
    assert psf("dags", "graph", "second", "--run", run).code == 2


def test_pools_are_set_listed_and_deleted(psf):
    assert psf("pools", "set", "warehouse", "4").out == "warehouse: 0 of 4 slots used\n"
    slots = {pool["name"]: pool["slots"] for pool in psf("pools", "list", "--json").json}
    assert slots["warehouse"] == 4
    listed = [line.split() for line in psf("pools", "list").out.splitlines()]
    assert listed[0] == ["pool", "slots", "used", "waiting"]
    assert ["warehouse", "4", "0", "0"] in listed
    assert psf("pools", "delete", "warehouse").code == 0
    assert "warehouse" not in psf("pools", "list").out
    assert psf("pools", "delete", "warehouse").code == 2
    assert psf("pools", "set", "warehouse", "-1").code == 2


def test_many_runs_are_chosen_by_filters_listed_and_acted_upon(psf, tmp_path):
    tag = ("--tag", "nightly")
    runs = [psf("dags", "trigger", "broken", *tag, "--json").json["run_id"] for _ in range(3)]
    for run in runs:
        psf("runs", "wait", run)
    assert psf("runs", "tag", runs[0], "kept", "--remove", "nightly").out == f"{runs[0]}: kept\n"
    assert psf("runs", "note", runs[0], "keep it").out.endswith("keep it\n")
    assert "keep it" in psf("runs", "show", runs[0]).out
    listed = psf("runs", "list", *tag, "--state", "failed", "--json").json
    assert [run["run_id"] for run in listed] == runs[:0:-1]
    assert "1 runs" not in psf("runs", "retry", *tag, "--dry-run").out
    planned = psf("runs", "retry", *tag, "--dry-run", "--json")
    plan = tmp_path / "plan.json"
    plan.write_text(planned.out)
    assert psf("runs", "clear", "--plan", plan, "--yes").code == 2  # it is a plan to retry
    assert "--yes" in psf("runs", "retry", "--plan", plan).err
    done = psf("runs", "retry", "--plan", plan, "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 runs retried")
    for run in runs[1:]:
        psf("runs", "wait", run)
    done = psf("runs", "retry", "--plan", plan, "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (1, "0 runs retried, 2 left")
    assert psf("runs", "cancel").code == 2
    assert psf("runs", "cancel", runs[0], *tag).code == 2
    assert psf("runs", "cancel", *tag, "--yes").out == "no runs\n0 runs cancelled\n"
    assert psf("dags", "list", "--tag", "nowhere").out == "no DAGs\n"
    assert psf("tasks", "list", runs[0], "--state", "failed", "--json").json[0]["task_id"] == "fail"


def test_tasks_and_runs_are_marked(psf):
    run = psf("dags", "trigger", "broken", "--tag", "marked", "--json").json["run_id"]
    psf("runs", "wait", run)
    shown = psf("tasks", "mark", "success", run, "fail", "--result", "[1]", "--dry-run")
    assert shown.out.splitlines()[-1] == "1 would be marked; the run is failed"
    done = psf("tasks", "mark", "success", run, "fail", "--result", "[1]", "--json")
    assert done.json["state"] == "success"
    assert "".join(psf("tasks", "result", run, "fail").out.split()) == "[1]"
    assert psf("runs", "mark", "failed", run, "--reason", "wrong").code == 0
    assert psf("runs", "wait", run).code == 1
    done = psf("runs", "mark", "success", "--tag", "marked", "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 run marked")
    assert psf("tasks", "mark", "success", run, "fail").code == 1


def test_tasks_of_many_runs_are_listed_cleared_and_marked(psf, tmp_path):
    tag = ("--tag", "swept")
    runs = [psf("dags", "trigger", "broken", *tag, "--json").json["run_id"] for _ in range(2)]
    for run in runs:
        psf("runs", "wait", run)
    chosen = ("--dag", "broken", "--since", "1d", *tag, "--task", "fail")
    listed = psf("tasks", "list", *chosen, "--state", "failed")
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == runs[::-1]
    plan = tmp_path / "plan.json"
    plan.write_text(psf("tasks", "clear", *chosen, "--dry-run", "--json").out)
    refused = psf("tasks", "clear", *chosen)
    assert (refused.code, "--yes" in refused.err) == (2, True)
    done = psf("tasks", "clear", "--plan", plan, "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 tasks cleared")
    assert psf("tasks", "clear", "--plan", plan, "--yes").code == 1
    for run in runs:
        psf("runs", "wait", run)
    done = psf("tasks", "mark", "success", *chosen, "--yes", "--reason", "by hand")
    assert (done.code, done.out.splitlines()[-1]) == (0, "2 tasks marked")
    for wrong in (
        ("clear",),
        ("clear", runs[0]),
        ("clear", runs[0], "fail", *tag),
        ("mark", "success"),
    ):
        assert psf("tasks", *wrong).code == 2
    assert psf("tasks", "list", runs[0], *tag).code == 2
