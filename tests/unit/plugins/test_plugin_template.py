"""The template of docs/plugins.md is what the page shows, and works where it is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
TEMPLATE = DOCS / "plugin-template"
CHECK = """
from pubsubflow import DAG
from pubsubflow.plugins import installed_plugins
from pubsubflow.operators import CrmExportOperator
from pubsubflow.timetables import OpeningDays
from pubsubflow.webhooks import Webhook
from acme_plugins.signing import AcmeSigned

hook = Webhook("acme", dataset="acme://events", verify=AcmeSigned(secret="s")).to_spec()
assert (hook.verify.name, hook.verify.fields) == ("acme.AcmeSigned", {"tolerance": 300})
DAG("d", schedule=OpeningDays("12-25"))
print(*(each.kind for each in installed_plugins() if each.distribution == "acme-plugins"))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    copy = tmp_path_factory.mktemp("template") / "acme"
    shutil.copytree(TEMPLATE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return copy


@pytest.fixture(scope="module")
def installed(copy):
    target = copy.parent / "installed"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--quiet"]
    run("-m", "pip", "install", *options, "--target", target, copy)
    return target


def run(*words, **more):
    done = subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_passes_its_own_tests_where_it_is_installed(copy, installed):
    out = run(
        *("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", copy / "tests"),
        cwd=copy.parent,
        env=os.environ | {"PYTHONPATH": str(installed), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert "5 passed" in out


def test_its_plugins_are_found_by_their_entry_points(installed):
    out = run("-c", CHECK, env=os.environ | {"PYTHONPATH": str(installed)})
    assert out.split() == ["operator", "connection-type", "timetable", "verifier"]


def test_the_page_shows_the_template():
    blocks = re.findall(
        r"```(?:toml|python)\n(.*?)```", (DOCS / "plugins.md").read_text(), re.DOTALL
    )
    files = [*TEMPLATE.glob("src/*/[!_]*.py"), *TEMPLATE.glob("tests/*.py")]
    assert len(files) == 6
    for path in (TEMPLATE / "pyproject.toml", *files):
        assert path.read_text() in blocks
