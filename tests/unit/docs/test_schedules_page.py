"""The timelines of docs/schedules.md are what the manager decides.

After a change of the page or of the drawing, draw them anew and read the difference:

    REDRAW=1 python -m pytest tests/unit/docs
"""

import os
import re
from pathlib import Path

import pytest

from pubsubflow import DAG, Dataset
from pubsubflow.testing import VirtualClock, event, simulate
from support.timelines.drawing import draw
from support.timelines.page import BLOCKS, Example, examples
from support.timelines.player import Player

PAGE = Path(__file__).parents[3] / "docs" / "schedules.md"
EXAMPLES = examples(PAGE.read_text())
CONSUMED = re.compile(r"^run \d+  +(?:\w{3} )?[\d:]+ *((?:[a-z]\d+ ?)*)", re.MULTILINE)
AS_SIMULATED = [
    example
    for example in EXAMPLES
    if all(re.fullmatch(r"[a-z]\d+|until", step.words[0]) for step in example.scenario.steps)
    and len(re.findall(r"^@dag", example.code, re.MULTILINE)) == 1
]


def defined(example: Example) -> dict:
    names = {"__name__": "page"}
    exec(compile(example.code, PAGE, "exec"), names)
    return names


def where(example: Example) -> str:
    return f"line {example.line}"


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_timeline_is_what_happens(database, number):
    example = EXAMPLES[number]
    drawn = draw(await Player(database, defined(example), example.scenario).play())
    if os.environ.get("REDRAW"):
        page = PAGE.read_text()
        start, end = examples(page)[number].span
        PAGE.write_text(page[:start] + drawn + page[end:])
    else:
        assert example.drawn == drawn, f"{PAGE.name}, line {example.line}: see this test's head"


def given(example: Example, uris: dict[str, str]) -> tuple[list, dict[str, str]]:
    """Return a scenario as `simulate` takes it, and how its events are called.

    `simulate` refuses events that concern nobody.
    """
    items, labels = [], {}
    concerned = example.drawn.split("\n\n")[1].split()
    for step in example.scenario.steps:
        items.append(step.at)
        label, extra = step.words[0], dict(step.options)
        if label not in concerned:
            continue
        (uri,) = (uri for name, uri in uris.items() if name.startswith(label[0]))
        partition, time = extra.pop("partition", None), extra.pop("time", None)
        moment = example.scenario.moment(time) if time else step.at
        happened = event(uri, extra=extra, partition=partition, time=moment)
        labels[happened.event_id] = label
        items.append(happened)
    return items, labels


@pytest.mark.parametrize("example", AS_SIMULATED, ids=where)
def test_simulation_says_the_same(example):
    names, scenario = defined(example), example.scenario
    (made,) = (each for each in names.values() if isinstance(each, DAG))
    uris = {name: each.uri for name, each in names.items() if isinstance(each, Dataset)}
    items, labels = given(example, uris | scenario.datasets)
    clock, until = VirtualClock(scenario.begins), scenario.steps[-1].at
    runs = simulate(made, items, clock=clock, until=until, lasts=scenario.takes)
    consumed = [" ".join(labels[each.event_id] for each in run.events) for run in runs]
    assert consumed == [line.strip() for line in CONSUMED.findall(example.drawn)]


def test_examples_of_tests_pass():
    blocks = [block["code"] for block in BLOCKS.finditer(PAGE.read_text()) if block["code"]]
    for code in blocks:
        if "def test_" not in code:
            continue
        names = {"__name__": "page"}
        exec(compile(f"{blocks[0]}\n{code}", PAGE, "exec"), names)
        tests = [each for name, each in names.items() if name.startswith("test_")]
        for run in tests:
            run()
        assert tests


def test_every_word_has_a_timeline():
    code = "\n".join(example.code.split("async def work")[1] for example in EXAMPLES)
    words = (
        "orders &", "[orders,", "orders |", "at_least(", "within(", "where(", "Dataset.match(",
        "Cron(", "Every(", "or_after(", 'then="run"', 'then="skip"', "each(", "batch(",
        "debounce(", "latest(", "partitioned(", "identity", "roll_up(", "fan_out(", "product(",
        "fixed(", "at_least=", "params_from", "subscribe_from", "on_pause", "max_active_runs",
    )  # fmt: skip
    assert [word for word in words if word not in code] == []
