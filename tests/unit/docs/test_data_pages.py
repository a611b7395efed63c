"""The examples of the pages about results, variables and templates run."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["results", "variables", "templates", "state"])
def test_the_examples_of_a_page_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    assert any("assert" in each for each in blocks)
    exec(compile("\n".join(blocks), f"{page}.md", "exec"), {"__name__": "page"})
