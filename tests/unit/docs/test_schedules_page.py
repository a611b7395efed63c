"""The timelines of docs/schedules.md are what the manager decides.

After a change of the page or of the drawing, draw them anew and read the difference:

    REDRAW=1 python -m pytest tests/unit/docs
"""

import os
from pathlib import Path

import pytest
from schedule_drawing import draw
from schedule_page import Example, examples
from schedule_player import Player

PAGE = Path(__file__).parents[3] / "docs" / "schedules.md"
EXAMPLES = examples(PAGE.read_text())

pytestmark = pytest.mark.anyio


async def timeline(database, example: Example) -> str:
    names = {"__name__": "page"}
    exec(compile(example.code, PAGE, "exec"), names)
    return draw(await Player(database, names, example.story).play())


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_timeline_is_what_happens(database, number):
    example = EXAMPLES[number]
    drawn = await timeline(database, example)
    if os.environ.get("REDRAW"):
        page = PAGE.read_text()
        start, end = examples(page)[number].span
        PAGE.write_text(page[:start] + drawn + page[end:])
    else:
        assert example.drawn == drawn, f"{PAGE.name}, line {example.line}: see this test's head"
