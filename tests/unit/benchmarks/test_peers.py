"""The side-by-side suite's statistics, table and settings; its runs are tests/integration/peers."""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec.structs import replace

from benchmarks.peers.adapters import PEERS
from benchmarks.peers.counts import LEAST
from benchmarks.peers.environment import REQUIREMENTS, pinned_version
from benchmarks.peers.kills import Sender
from benchmarks.peers.marks import Mark, Marks, parse
from benchmarks.peers.pages import PAGES, between, measured, put_into, summary, whole
from benchmarks.peers.peer import Peer
from benchmarks.peers.results import Figure, Machine, Result, read, write
from benchmarks.peers.senders import Http
from benchmarks.peers.statistics import median_figure, outcome
from benchmarks.peers.suite import measure
from benchmarks.peers.table import conditions, markdown, newest, shown

PAGE = Path(__file__).parents[3] / "docs" / "peers.md"


def mark(moment, key, phase, run="r"):
    return Mark(moment, "slow", key, phase, run)


def result(
    peer="dbos", at="2026-11-30T07:00:00Z", settings="default", figures=(), busy=2.0, **more
):
    machine = Machine("Linux", 2, 24, "3.11.7", 0.5, busy)
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


def test_a_connection_that_the_server_has_ended_is_opened_anew():
    ended = threading.Event()
    asked = []

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"true")
            self.close_connection = True

        def finish(self):
            super().finish()
            self.request.shutdown(socket.SHUT_RDWR)
            ended.set()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        http = Http(server.server_port)
        for path in ("/a", "/b"):
            assert http.call("GET", path) is True
            assert ended.wait(60)
            ended.clear()
        http.close()
        server.shutdown()
    assert asked == ["/a", "/b"]


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
    found = newest([old, new, other])
    assert markdown(found).splitlines() == [
        "| figure | dbos 1.0, default | airflow 1.0, default |",
        "|---|---|---|",
        "| start | 2 s |  |",
        "| hop | 3 ms | 4 ms |",
        "| lost |  | 1 |",
    ]
    assert markdown(found, ["hop"]).splitlines()[2:] == ["| hop | 3 ms | 4 ms |"]


def test_what_failed_is_shown_with_its_cause_and_the_load_of_the_machine():
    found = result(failed={"kill": "TimeoutError: 3 of 9 <a|b>\nmore"}, busy=80.0)
    assert conditions([found]).splitlines() == [
        (
            "- dbos 1.0, default: 2026-11-30, 2 cores, 24 GiB, Python 3.11.7, full counts;"
            " measured at load 0.5, with 80 % of the cores busy with other work."
        ),
        "    - `kill`: TimeoutError: 3 of 9 &lt;a\\|b>",
    ]


def test_the_readme_shows_what_a_quiet_machine_measured_and_the_best_settings_of_each():
    figures = [Figure("event → first line", 3, "ms")]
    ours = result("pubsubflow", figures=figures)
    same = result("pubsubflow", settings="same-postgres", figures=figures)
    default, tuned = result(figures=figures), result(settings="tuned", figures=figures)
    assert summary([ours, same, default, tuned]).splitlines() == [
        "| figure | pubsubflow 1.0, default | dbos 1.0, tuned |",
        "|---|---|---|",
        "| event → first line | 3 ms | 3 ms |",
    ]
    busy = result(figures=figures, busy=80.0)
    assert "3 ms" not in summary([ours, busy])
    assert "busy" in whole([ours, busy])
    assert "busy with other work: " not in whole([ours, default])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_pages_are_what_the_suite_has_measured(page):
    assert between(page) == PAGES[page](measured())


def test_a_page_gets_the_table_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- peers -->\nold\n<!-- /peers -->\nb\n")
    put_into(page, "| new |\n")
    assert page.read_text() == "a\n<!-- peers -->\n| new |\n<!-- /peers -->\nb\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="peers"):
        put_into(page, "")


class Refusing(Peer):
    """Starts as often as it is told, and refuses every event."""

    name = "refusing"
    settings: ClassVar = {"default": {}}
    starts: ClassVar[list[str]]

    @classmethod
    def own_environment(cls):
        return cls.here("1.0")

    @classmethod
    def needs_database(cls, _settings):
        return False

    def prepare(self):
        self.started = 0

    def commands(self):
        self.started += 1
        return {"it": [sys.executable, "-c", self.starts[self.started - 1]]}

    def is_ready(self):
        return (self.site.folder / "it.log").read_text().count("up") == self.started

    def send(self, _workload, _keys):
        raise ConnectionRefusedError("full")

    def post(self, _count, clients):
        return 7.0 * clients

    def postgres_dsn(self):
        return None


UP = "print('up', flush=True); import time; time.sleep(600)"


def measured_of(starts, folder, workloads, **counts):
    kind = type("Refusing", (Refusing,), {"starts": starts})
    limits = replace(LEAST, **counts)
    return measure(kind, "default", workloads, limits, cache=folder, results=folder)


def test_a_workload_that_fails_is_noted_and_the_peer_started_again_for_the_next(tmp_path):
    found = measured_of([UP, UP], tmp_path, ["event", "posts"])
    assert found.failed == {"event": "ConnectionRefusedError: full"}
    assert [each.value for each in found.figures] == [7, 56]
    (written,) = tmp_path.glob("*.json")
    assert read(written) == found


def test_a_peer_that_does_not_start_again_is_given_up_with_the_cause(tmp_path):
    found = measured_of([UP, "raise SystemExit('disk full')"], tmp_path, ["event", "hop", "posts"])
    assert found.figures == []
    assert found.failed.keys() == {"event", "hop", "posts"}
    assert "did not start again: it ended with 1" in found.failed["posts"]
    assert "disk full" in found.failed["posts"]


def test_a_peer_whose_time_is_over_is_given_up(tmp_path):
    found = measured_of([UP], tmp_path, ["idle", "posts", "kill"], peer_seconds=0)
    assert [each.name for each in found.figures] == ["idle, share of a core", "idle, memory (PSS)"]
    assert found.failed == dict.fromkeys(["posts", "kill"], "not begun: 0 s were over")


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
