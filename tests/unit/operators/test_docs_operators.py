"""The examples of docs/operators.md run, as far as they need no server; all can be loaded."""

import re
from pathlib import Path

from pubsubflow.authoring.registry import loading
from pubsubflow.authoring.template_checks import check_templates

PAGE = Path(__file__).parents[3] / "docs" / "operators.md"


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with loading(str(PAGE)) as collected:
        for block in blocks:
            exec(compile(block, PAGE, "exec"), {"__name__": "page"})
    assert len(collected.dags) == 9
    for dag in collected.dags.values():
        check_templates(dag)
