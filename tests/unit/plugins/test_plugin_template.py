"""The template of docs/plugins.md is what the page shows, and works where it is copied to."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
TEMPLATE = DOCS / "plugin-template"


def test_a_copy_of_the_template_passes_its_own_tests(tmp_path):
    copy = tmp_path / "acme"
    shutil.copytree(TEMPLATE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_page_shows_the_template():
    blocks = re.findall(
        r"```(?:toml|python)\n(.*?)```", (DOCS / "plugins.md").read_text(), re.DOTALL
    )
    for name in ("pyproject.toml", "src/acme_plugins/crm.py", "tests/test_crm.py"):
        assert (TEMPLATE / name).read_text() in blocks
