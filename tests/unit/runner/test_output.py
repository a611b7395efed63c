import json
import sys

from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.runner.log_lines import MAX_LINE_CHARACTERS, LineSplitter, log_line, log_record
from pubsubflow.runner.output import CURRENT_OUTPUT, TaskOutput, TaskStream


@given(st.text(alphabet="ab\n", max_size=200), st.lists(st.integers(1, 20), min_size=1))
def test_lines_are_the_same_however_the_text_is_cut(text, cuts):
    splitter, found, position, turn = LineSplitter(), [], 0, 0
    while position < len(text):
        size = cuts[turn % len(cuts)]
        found += splitter.feed(text[position : position + size])
        position, turn = position + size, turn + 1
    found += splitter.finish()
    expected = text.split("\n")
    assert found == (expected if expected[-1] else expected[:-1])


def test_endless_lines_are_cut():
    splitter = LineSplitter()
    found = splitter.feed("x" * (3 * MAX_LINE_CHARACTERS + 1)) + splitter.finish()
    assert [len(line) for line in found] == [MAX_LINE_CHARACTERS] * 3 + [1]


def test_what_json_cannot_say_is_written_as_text():
    record = json.loads(log_record("info", "odd", {"what": {1}, "level": 2, "bad": "\udc80"}))
    assert (record["what"], record["level_"], record["bad"]) == ("{1}", 2, "\\udc80")
    assert json.loads(log_line("stdout", "\udc80"))["m"] == "\\udc80"
    assert json.loads(log_record("info", "long", {"x": "y" * 100_000}))["truncated"] is True


def test_a_stream_gives_each_task_its_own_output():
    calls = []
    one, two = (TaskOutput(calls.append, calls.append) for _ in range(2))
    stream = TaskStream("stdout", sys.stdout)
    for output, text in ((one, "a"), (two, "x\ny"), (one, "b\nc")):
        CURRENT_OUTPUT.set(output)
        print(text, end="", file=stream)
    CURRENT_OUTPUT.set(None)
    described = [[json.loads(line)["m"] for line in out.take().splitlines()] for out in (one, two)]
    assert described == [["ab"], ["x"]]
    assert [json.loads(out.take(last=True))["m"] for out in (one, two)] == ["c", "y"]
    assert calls == [two, one]


def test_much_output_leaves_at_once():
    first, full = [], []
    output = TaskOutput(first.append, full.append)
    output.write("stdout", "x" * 1000 + "\n")
    for _ in range(40):
        output.write("stderr", "y" * 1000 + "\n")
    assert (first, full[0]) == ([output], output)
