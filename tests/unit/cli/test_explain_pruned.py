"""`runs explain` says where retention has cut the trail."""

from datetime import UTC, datetime

from rich.console import Console

from pubsubflow.cli.commands.ancestry import _tree
from pubsubflow.model.api.explain import ConsumedEventView, ExplainedRun, Explanation
from pubsubflow.model.api.resources import RunView

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def test_the_end_of_the_trail_is_named():
    run = RunView(
        run_id="r", dag_id="d", state="success", kind="dataset", cause="x was updated",
        version=1, run_key="k", params={}, created_at=NOW,
    )  # fmt: skip
    event = ConsumedEventView(
        event_id="e", dataset="x://x", extra={}, time=NOW, recorded_at=NOW, source="task",
        places=[0], pruned=True,
    )  # fmt: skip
    step = ExplainedRun(run=run, depth=0, events=[event], pruned_events=2)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(_tree(Explanation(run_id="r", runs=[step])))
    assert "emitted by a task of a run that was pruned" in captured.get()
    assert "2 of its events were pruned" in captured.get()
