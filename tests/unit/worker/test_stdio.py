"""What tasks of a process write one after another is told apart, however it is cut and read."""

import asyncio
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.runner.log_lines import NODE_MARK
from pubsubflow.worker.processes.stdio import OutputPipe

MARK = f"{NODE_MARK}\n"
TEXTS = st.text(st.sampled_from("ab \n"), max_size=6)
# Of each task its pieces of output, and before each of them whether the worker reads, and then
# whether it handles the next result that is there.
TASKS = st.lists(
    st.lists(st.tuples(TEXTS, st.booleans(), st.booleans()), max_size=4), min_size=1, max_size=5
)


class Process:
    """A process that was sent all its tasks ahead, and the worker that reads from it."""

    def __init__(self, tasks):
        self.tasks = tasks
        self.found = [[] for _ in tasks]
        self.handled = self.ended = 0
        self.pipe = OutputPipe("stdout", self.on_lines)

    def on_lines(self, lines):
        self.found[self.handled] += [json.loads(line)["m"] for line in lines.splitlines()]

    def handle(self):
        """Handle the next result that is on its way, as a worker does."""
        if self.handled == self.ended:
            return
        if self.handled == len(self.tasks) - 1:
            self.pipe.finish()
            return
        self.pipe.end_task()
        self.handled += 1
        self.pipe.next_task()

    def run(self):
        for number, pieces in enumerate(self.tasks):
            if number:
                os.write(self.pipe.writer, MARK.encode())
            for text, reads, handles in pieces:
                if reads:
                    self.pipe._read()
                if handles:
                    self.handle()
                os.write(self.pipe.writer, text.encode())
            self.ended += 1
        for _ in self.tasks:
            self.handle()
        self.pipe.close()


@given(TASKS)
def test_each_task_gets_its_own_lines(tasks):
    async def run():
        process = Process(tasks)
        process.run()
        return process.found

    found = asyncio.run(run())
    texts = ["".join(text for text, _, _ in pieces) for pieces in tasks]
    # A last line has no line end.
    assert found == [text.removesuffix("\n").split("\n") if text else [] for text in texts]


def test_a_mark_that_does_not_come_is_not_waited_for():
    async def run():
        process = Process([[], [], []])
        process.ended = 1
        process.handle()  # the next one is given back by the process: it writes no mark
        process.pipe.expect_no_mark()
        os.write(process.pipe.writer, b"of the one after it\n" + MARK.encode() + b"of the last\n")
        process.pipe._read()
        before = [list(lines) for lines in process.found]
        process.ended = 2
        process.handle()
        process.pipe.close()
        return before, process.found

    before, found = asyncio.run(run())
    assert before == [[], ["of the one after it"], []]
    assert found == [[], ["of the one after it"], ["of the last"]]


class Clock:
    """A loop whose time goes on by a second whenever somebody looks at it."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def time(self):
        self.now += 1.0
        return self.now

    def call_later(self, seconds, _):
        self.pauses.append(seconds)
        return self

    def add_reader(self, *_):
        pass

    def remove_reader(self, *_):
        pass

    def cancel(self):
        pass


@pytest.mark.anyio
async def test_all_that_write_without_pause_share_a_third_of_the_loop(monkeypatch):
    clock = Clock()
    pipes = []
    for _ in range(3):
        pipe = OutputPipe("stdout", lambda _: None)
        pipe._loop.remove_reader(pipe._reader)
        monkeypatch.setattr(pipe, "_loop", clock)
        os.write(pipe.writer, b"x" * 4095 + b"\n" + b"y" * 4095 + b"\n")
        pipes.append(pipe)
    for pipe in pipes:
        pipe._on_readable()
    assert clock.pauses == [3.0, 6.0, 9.0]
    pipes[0]._on_readable()
    pipes[0]._on_readable()  # it has read all there is
    pipes[1].close()
    pipes[2]._on_readable()
    assert clock.pauses[3:] == [9.0, 3.0]
    for pipe in (pipes[0], pipes[2]):
        pipe.close()
    assert not OutputPipe._full
