"""A backfill through a real daemon, which is killed in the middle of it and started again."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

DAG_FILE = """
import asyncio
from pathlib import Path

from pubsubflow import Context, Cron, dag, task


@dag(schedule=Cron("0 * * * *"), max_active_runs=1, params={"part": "a"})
def hourly():
    @task
    async def work(ctx: Context) -> None:
        out = Path("__OUT__")
        with out.open("a") as file:
            file.write(f"{ctx.run.logical_time or ctx.run.partition}\\n")
        while len(out.read_text().splitlines()) > 5 and not out.with_name("go").exists():
            await asyncio.sleep(0.1)

    work()
"""
TICKS = ("dags", "backfill", "hourly", "--from", "2026-01-01T00:00Z", "--to", "2026-01-02T00:00Z")


@contextmanager
def daemon(dags, home):
    """Run a daemon that is killed, unless it was stopped, when the block ends."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "pubsubflow.cli.main", "up", str(dags)),
            *("--home", str(home), "--port", "0", "--config", os.devnull),
            *("--ready-fd", str(writer), "--parent", str(os.getpid())),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[writer],
        env={**os.environ, "PUBSUBFLOW__WORKER__RUN_AS": ""},
        start_new_session=True,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as ready:
            assert ready.readline().strip()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_backfill_makes_each_run_once_though_its_daemon_is_killed(call, tmp_path, fresh_home):
    dags, home, out = tmp_path / "dags", fresh_home(tmp_path / "home"), tmp_path / "out"
    dags.mkdir()
    out.touch()
    (dags / "hourly.py").write_text(DAG_FILE.replace("__OUT__", str(out)))

    def psf(*arguments, code=0, **options):
        answer = call(*arguments, PUBSUBFLOW_HOME=str(home), **options)
        assert answer.code == code, answer.err
        return answer

    with daemon(dags, home) as process:
        assert "would start 24 runs" in psf(*TICKS, "--dry-run").out
        more = ("--max-active-runs", "2", "--newest-first", "--description", "all of a day")
        made = psf(*TICKS, *more)
        assert "started 2 of 24 runs, the others follow" in made.out
        backfill = made.out.split()[-1]
        while len(out.read_text().splitlines()) < 7:
            shown = psf("backfills", "show", backfill, "--json").json
            assert (shown["running"], process.poll()) == (2, None)
        process.send_signal(signal.SIGKILL)
        process.wait()
    out.with_name("go").touch()
    with daemon(dags, home):
        waited = psf("backfills", "wait", backfill, "--timeout", "60", "--json").json
        assert (waited["state"], waited["succeeded"], waited["left"]) == ("completed", 24, 0)
        runs = psf("runs", "list", "--kind", "backfill", "--limit", "100", "--json").json
        assert psf("runs", "list", "--backfill", backfill, "--limit", "100", "--json").json == runs
        of_another = "00000000-0000-7000-8000-000000000000"
        assert of_another in psf("runs", "list", "--backfill", of_another, code=2).err
        times = [run["logical_time"] for run in runs]
        assert len(times) == len(set(times)) == 24
        # The newest first; what ran when the daemon died has run again.
        assert times == sorted(times)
        assert {f"{time[:10]} {time[11:19]}+00:00" for time in times} == set(
            out.read_text().splitlines()
        )
        shown = psf("backfills", "show", backfill)
        assert "24 planned: 24 succeeded" in shown.out
        assert "all of a day" in shown.out
        assert "started 0 runs; 24 exist already" in psf(*TICKS).out
        paused_and_cancelled(psf, out.with_name("go"))


def paused_and_cancelled(psf, go):
    go.unlink()  # from here on a run goes on for as long as it is not there
    keys = "".join(f"p{number}\n" for number in range(9))
    made = psf(
        *("dags", "backfill", "hourly", "--partitions-file", "-", "--json"),
        *("--max-active-runs", "1"),
        typed=keys,
    )
    backfill = made.json["backfill_id"]
    paused = psf("backfills", "pause", backfill, "--reason", "lunch", "--json").json
    assert (paused["state"], paused["reason"]) == ("paused", "lunch")
    assert "paused" in psf("backfills", "list", "--state", "paused", "--dag", "hourly").out
    assert psf("backfills", "wait", backfill, "--timeout", "0", code=1).out
    assert "running" in psf("backfills", "resume", backfill).out
    cancelled = psf("backfills", "cancel", backfill, "--running", "--json").json
    assert cancelled["state"] == "cancelled"
    assert "is cancelled" in psf("backfills", "resume", backfill, code=1).err
    psf("backfills", "wait", backfill, code=1)
    go.touch()
    again = psf("dags", "backfill", "hourly", "--partition", "p0", "--only-failed", "--wait")
    assert "completed, 1 planned: 1 succeeded" in again.out
    psf("dags", "backfill", "hourly", "--partitions-file", "/no/file", code=2)
    psf("backfills", "show", "nothing", code=2)
