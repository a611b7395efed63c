"""The examples of the pages for those who come from elsewhere run."""

import re
from pathlib import Path

import pytest

from pubsubflow.authoring.registry import loading


@pytest.mark.parametrize("page", ["from-dagster", "from-prefect"])
def test_the_examples_of_a_page_run(page):
    text = Path("docs", f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {"__name__": page}
    with loading(page) as collected:
        exec(compile("\n".join(blocks), f"{page}.md", "exec"), names)
    assert collected.dags
    tests = [made for name, made in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
