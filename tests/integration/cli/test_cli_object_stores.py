"""A daemon whose large results and old output are in object stores, as its user sees it."""

from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from watchfiles import awatch

from pubsubflow.cli.daemon_process import child_daemon

pytestmark = pytest.mark.anyio
FOLDER = Path(__file__).with_name("large")
SIZE = 400_000


@pytest.fixture(scope="module")
def place(tmp_path_factory, fresh_home):
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUBFLOW__RESULTS__STORE", f"file://{folder}/results")
        patch.setenv("PUBSUBFLOW__LOGS__STORE", f"file://{folder}/logs")
        patch.setenv("PUBSUBFLOW__LOGS__EVERY_SECONDS", "0.1")
        with child_daemon(FOLDER, home=fresh_home(folder / "home"), port=0):
            yield SimpleNamespace(folder=folder, results=folder / "results", logs=folder / "logs")


@pytest.fixture
def psf(place, anywhere):
    def there(*arguments):
        return anywhere(*arguments, PUBSUBFLOW_HOME=str(place.folder / "home"))

    return there


async def moved(place):
    """Wait until output is in the log store."""
    if not any(place.logs.rglob("*.jsonl.gz")):
        async for _ in awatch(place.folder, watch_filter=None):
            if any(place.logs.rglob("*.jsonl.gz")):
                return


async def test_large_results_are_passed_on_in_every_way(psf, place, tmp_path):
    started = psf("dags", "trigger", "large", "--wait", "--json")
    assert started.code == 0, started
    run = started.json["run_id"]
    gathered = psf("tasks", "result", run, "gather").json
    assert gathered == {"parts": 3 + 600_000, "more": sum(range(10**6, 10**6 + SIZE)),
                        "last": 10**6 + SIZE - 1, "pushed": 1_500_007}  # fmt: skip
    files = sorted(path.name for path in place.results.rglob("*.msgpack"))
    assert len(files) == 4, "the numbers, the texts and their copy, the large one of the measures"
    assert psf("tasks", "show", run, "texts", "--json").json["results"] == {
        "copy": None,
        "count": 7,
    }
    shown = psf("tasks", "show", run, "numbers", "--json").json
    assert (shown["result"], shown["result_stored"], shown["length"]) == (None, True, SIZE)
    assert shown["result_bytes"] > 1 << 20
    text = psf("tasks", "show", run, "numbers").out
    assert "in the result store: see tasks result" in " ".join(text.split())
    psf("tasks", "result", run, "numbers", "-o", tmp_path / "numbers.json")
    assert (tmp_path / "numbers.json").read_text().startswith("[1000000,1000001,")
    # Output has moved meanwhile, and reads as before.
    with anyio.fail_after(20):
        await moved(place)
    assert "gathered 2" in psf("tasks", "logs", run, "gather").out
    cleared = psf("tasks", "clear", run, "texts", "--downstream", "--yes")
    assert cleared.code == 0, cleared
    assert psf("runs", "wait", run).code == 0
    assert psf("tasks", "result", run, "gather").json == gathered
