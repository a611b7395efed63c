"""The template of docs/triggers.md is what the guide shows, and works where it is copied to."""

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import anyio
import pytest

pytestmark = pytest.mark.anyio
DOCS = Path(__file__).parents[2] / "docs"
TEMPLATE = DOCS / "trigger-template"


async def test_a_copy_of_the_template_passes_its_own_tests(tmp_path):
    copy = tmp_path / "acme"
    shutil.copytree(TEMPLATE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    register(copy)
    done = await anyio.run_process(
        [
            *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
            # In the usual folder it would remove what earlier runs of other tests left.
            f"--basetemp={tmp_path / 'tmp'}",
        ],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b"5 passed" in done.stdout


def register(copy):
    """Write what an installation writes: the entry points."""
    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]
    folder = copy / "src" / "acme_triggers-0.1.0.dist-info"
    folder.mkdir()
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )


def test_the_guide_shows_the_template():
    blocks = re.findall(
        r"```(?:toml|python)\n(.*?)```", (DOCS / "triggers.md").read_text(), re.DOTALL
    )
    for name in ("pyproject.toml", "src/acme_triggers/disk.py", "tests/test_disk.py"):
        assert (TEMPLATE / name).read_text() in blocks
