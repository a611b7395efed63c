"""The commands and the code of docs/tutorial.md work, one after another."""

import re
import shlex
import time
from pathlib import Path

from pubsubflow.cli.daemon_process import child_daemon

TEXT = Path(__file__).parents[3].joinpath("docs/tutorial.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_tutorial_works(call, tmp_path, fresh_home, record_property):
    started = time.monotonic()
    create, *before, after = blocks("sh")
    assert create == "pubsubflow init shop\ncd shop\n"
    assert call("init", "shop", cwd=tmp_path).code == 0
    shop = tmp_path / "shop"
    given, added = blocks("python")
    body = (line.strip() for line in given.splitlines() if "def " not in line)
    shipped = (shop / "tests" / "test_sales.py").read_text()
    assert all(line in shipped for line in body)
    for line in "".join(before).splitlines():
        ended = call(*shlex.split(line)[1:], cwd=shop)
        assert ended.code == 0, (line, ended)
    with (shop / "dags" / "sales.py").open("a") as file:
        file.write(f"\n\n{added}")
    home = fresh_home(tmp_path / "home")
    with child_daemon(shop / "dags", home=home, port=0):
        for line in after.splitlines():
            ended = call(*shlex.split(line)[1:], cwd=shop, PUBSUBFLOW_HOME=str(home))
            assert ended.code == 0, (line, ended)
            if line == "pubsubflow runs list":
                assert "build_report" in ended.out
    record_property("tutorial_seconds", round(time.monotonic() - started, 1))
