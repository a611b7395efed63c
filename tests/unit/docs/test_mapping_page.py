"""The example of docs/mapping.md runs."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "mapping.md"


def test_the_example_runs():
    names = {"__name__": "page"}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)), names)
    run = names["prices"].test()
    assert run.result("gather") == "[6, 2, 4] ['6.0 EUR', '3.0 USD']"
