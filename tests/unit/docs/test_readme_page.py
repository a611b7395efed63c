"""The first example of the README runs as it stands there."""

import re
from pathlib import Path

from pubsubflow.cli.main import make_app
from pubsubflow.testing import event

README = (Path(__file__).parents[3] / "README.md").read_text()


def test_the_first_two_dags_run():
    names = {"__name__": "shop"}
    exec("\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)), names)
    posted = event(names["orders"], extra={"amounts": [19.9, 5]})
    added = names["add_up"].test(events=[posted])
    assert (added.state, added.result("total")) == ("success", 24.9)
    assert names["report"].test(events=added.emitted).result("summarize") == "24.90 taken"


def test_every_command_is_one():
    app = make_app()
    lines = re.findall(r"^pubsubflow ([^#\n]*)", README, re.MULTILINE)
    assert lines
    for line in lines:
        app.parse_args(line.split(), print_error=False, exit_on_error=False)
