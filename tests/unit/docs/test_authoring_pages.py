"""The examples of the pages about authoring define what they show."""

import re
from pathlib import Path

import pytest

from pubsubflow.authoring.registry import loading
from pubsubflow.authoring.template_checks import check_templates

PAGES = ("params", "retries", "trigger-rules", "past-runs")


def blocks(page):
    text = Path("docs", f"{page}.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "number"), [(page, n) for page in PAGES for n in range(len(blocks(page)))]
)
def test_an_example_is_a_dag_file(page, number):
    with loading(page) as collected:
        exec(compile(blocks(page)[number], f"{page}.py", "exec"), {"__name__": page})
    assert collected.dags
    for made in collected.dags.values():
        check_templates(made)
        assert made.to_spec("", "")
