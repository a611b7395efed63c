"""The side-by-side suite measures pubsubflow itself, from its start to a kill."""

from benchmarks.peers.adapters import PEERS
from benchmarks.peers.counts import LEAST
from benchmarks.peers.kills import LOST
from benchmarks.peers.results import read
from benchmarks.peers.suite import measure


def test_the_suite_measures_pubsubflow(tmp_path):
    found = measure(
        PEERS["pubsubflow"],
        "default",
        ["event", "hop", "posts", "kill"],
        LEAST,
        cache=tmp_path,
        results=tmp_path,
    )
    assert found.failed == {}
    values = {each.name: each.value for each in found.figures}
    assert values["event → first line"] > 0
    assert values["task end → next workflow's first line"] > 0
    assert values["events acknowledged a second, clients: 8"] > 0
    assert (values[LOST], values["runs doubled"]) == (0, 0)
    assert values["kill -9 → first line of a task"] > 0
    (written,) = tmp_path.glob("*.json")
    assert read(written) == found
