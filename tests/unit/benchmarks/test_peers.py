"""The side-by-side suite's statistics, table and settings; its runs are tests/integration/peers."""

from pathlib import Path

import pytest

from benchmarks.peers.adapters import PEERS
from benchmarks.peers.environment import REQUIREMENTS, pinned_version
from benchmarks.peers.kills import Sender
from benchmarks.peers.marks import Mark, Marks, parse
from benchmarks.peers.results import Figure, Machine, Result, read, write
from benchmarks.peers.statistics import median_figure, outcome
from benchmarks.peers.table import markdown, newest, put_into, shown

PAGE = Path(__file__).parents[3] / "docs" / "peers.md"


def mark(moment, key, phase, run="r"):
    return Mark(moment, "slow", key, phase, run)


def result(peer="dbos", at="2026-11-30T07:00:00Z", settings="default", figures=(), **more):
    machine = Machine("Linux", 2, 24, "3.11.7", 0.5)
    return Result(at, peer, "1.0", settings, {}, "full", machine, figures=list(figures), **more)


def test_an_event_without_an_end_is_lost():
    marks = [mark(1, "a", "start"), mark(1.2, "a", "end"), mark(9, "b", "start")]
    found = outcome(marks, {"a": 0.9, "b": 1.0}, killed=5)
    assert (found.lost, found.doubled) == (1, 0)
    assert found.first_seconds == 4
    assert found.all_seconds is None


def test_an_event_that_was_not_acknowledged_is_not_lost():
    assert outcome([], {}, killed=5).lost == 0


def test_two_runs_that_end_for_an_event_are_one_too_many():
    marks = [mark(1, "a", "start", "r1"), mark(2, "a", "end", "r1")]
    marks += [mark(6, "a", "start", "r2"), mark(7, "a", "end", "r2")]
    found = outcome(marks, {"a": 0.9}, killed=5)
    assert (found.lost, found.doubled, found.begun_again) == (0, 1, 0)


def test_a_task_that_died_and_began_again_is_no_second_run():
    marks = [mark(4.9, "a", "start"), mark(6, "a", "start"), mark(7, "a", "end")]
    found = outcome(marks, {"a": 4.8}, killed=5)
    assert (found.lost, found.doubled, found.begun_again) == (0, 0, 1)
    assert (found.first_seconds, found.all_seconds) == (1, 2)


def test_what_was_acknowledged_after_the_kill_is_not_waited_for():
    marks = [mark(1, "a", "end"), mark(30, "b", "end")]
    assert outcome(marks, {"a": 0.9, "b": 29}, killed=5).all_seconds == 0


class Flaky:
    """Takes an event at the second try."""

    def __init__(self):
        self.tried = []

    def send(self, workload, keys):
        self.tried.append((workload, *keys))
        if self.tried.count((workload, *keys)) == 1:
            raise ConnectionResetError("away")


def test_an_event_is_sent_until_it_is_acknowledged_and_the_last_one_after_the_kill():
    peer = Flaky()
    sender = Sender(peer, ["a", "b", "c"], rate=1000)
    sender.start()
    while len(sender.acknowledged) < 2:
        sender.join(0.01)
    assert sender.acknowledged.keys() == {"a", "b"}
    assert sender.is_alive()
    sender.note_kill()
    sender.join(60)
    assert sender.acknowledged.keys() == {"a", "b", "c"}
    assert peer.tried == [("slow", key) for key in "aabbcc"]
    assert sender.refused == "away"


def test_a_figure_is_the_median_to_three_digits():
    found = median_figure("hop", [1.23456, 9, 0.5], "ms")
    assert (found.value, found.least, found.greatest, found.samples) == (1.23, 0.5, 9, 3)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure("", 3.49, "ms"), "3.49 ms"),
        (Figure("", 11600, "ms"), "11.6 s"),
        (Figure("", 0.04, "s"), "40 ms"),
        (Figure("", 20630, "1/s"), "20,630 1/s"),
        (Figure("", 0, ""), "0"),
    ],
)
def test_values_are_shown_in_the_unit_that_reads_best(figure, text):
    assert shown(figure) == text


def test_the_table_has_a_column_for_the_newest_result_of_each():
    old = result(figures=[Figure("hop", 9, "ms")])
    new = result(
        at="2026-11-30T08:00:00Z", figures=[Figure("start", 2, "s"), Figure("hop", 3, "ms")]
    )
    other = result(
        "airflow", figures=[Figure("hop", 4, "ms"), Figure("lost", 1, "")], failed={"kill": "x"}
    )
    table = markdown(newest([old, new, other]))
    assert table.splitlines()[:5] == [
        "| figure | dbos 1.0, default | airflow 1.0, default |",
        "|---|---|---|",
        "| start | 2 s |  |",
        "| hop | 3 ms | 4 ms |",
        "| lost |  | 1 |",
    ]
    assert "2026-11-30, 2 cores" in table
    assert "`kill` failed" in table


def test_a_page_gets_the_table_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- peers -->\nold\n<!-- /peers -->\nb\n")
    put_into(page, "| new |\n")
    assert page.read_text() == "a\n<!-- peers -->\n| new |\n<!-- /peers -->\nb\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="peers"):
        put_into(page, "")


def test_a_result_is_read_as_it_was_written(tmp_path):
    written = result(figures=[Figure("hop", 3, "ms", note="n")], failed={"kill": "TimeoutError"})
    assert read(write(written, tmp_path)) == written


def test_half_a_line_waits_for_its_rest(tmp_path):
    marks, file = Marks(tmp_path / "marks"), tmp_path / "marks"
    file.write_text("1.5 one k start r\n2.5 one k")
    assert marks.read() == parse("1.5 one k start r")
    with file.open("a") as more:
        more.write(" end r\n")
    assert marks.read() == parse("2.5 one k end r")


def test_a_wait_that_runs_out_says_what_is_missing(tmp_path):
    marks = Marks(tmp_path / "marks")
    (tmp_path / "marks").write_text("1.5 pair.up k end r\n1.6 pairs k end r\n")
    with pytest.raises(TimeoutError, match="1 of 2 times pair end"):
        marks.wait("pair", "end", 2, 0)


@pytest.mark.parametrize("name", [name for name in PEERS if name != "pubsubflow"])
def test_each_peer_is_pinned(name):
    lines = (REQUIREMENTS / f"{name}.txt").read_text().split()
    assert all("==" in line for line in lines)
    assert pinned_version("\n".join(lines))


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_the_page_says_how_each_peer_is_set_up(peer):
    text = PAGE.read_text()
    assert "default" in peer.settings
    for variables in peer.settings.values():
        for name, value in variables.items():
            assert f"`{name}={value}`" in text
    if peer.name != "pubsubflow":
        assert pinned_version((REQUIREMENTS / f"{peer.name}.txt").read_text()) in text
