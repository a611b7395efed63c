"""The examples of docs/testing.md run."""

import inspect
import re
from pathlib import Path

import anyio

GUIDE = Path(__file__).parents[3] / "docs" / "testing.md"


def test_the_guides_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names = {"__name__": "guide"}
    exec(compile("\n".join(blocks), GUIDE, "exec"), names)
    tests = {name: made for name, made in names.items() if name.startswith("test_")}
    assert len(tests) >= len(blocks) - 1
    for run in tests.values():
        if inspect.iscoroutinefunction(run):
            anyio.run(run)
        else:
            run()
