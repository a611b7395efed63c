"""The pages for contributors name what is there: files, tables, streams, subjects, states."""

import re
import runpy
from pathlib import Path

import pytest

from pubsubflow.bus.streams import stream_configs

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MIGRATIONS = ROOT / "pubsubflow" / "store" / "migrations"
PAGES = (
    "AGENTS.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/architecture.md",
    "docs/contributing/recipes.md",
    "docs/contributing/tests.md",
    "docs/glossary.md",
    "docs/releasing.md",
)
FILE = re.compile(r"(?<![\w./-])[\w-]+(?:/[\w.-]+)+\.(?:md|py|sql|toml|yaml)\b|\b\w+\.py\b")
FOLDER = re.compile(r"`((?:pubsubflow|tests|triggers|docs|tools)(?:/[\w-]+)*)/?`")


def section(title):
    """Return the text below a heading, up to the next one."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(text):
    """Return what stands as code in the first cell of each row of a page's tables."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def exists(name, page):
    """Whether a name is a path in the repository, in the package, or beside the page."""
    places = (ROOT, ROOT / "pubsubflow", (ROOT / page).parent)
    return any((place / name).exists() for place in places)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    names = {*FILE.findall(text), *FOLDER.findall(text)}
    assert names
    assert [name for name in sorted(names) if not exists(name, page)] == []


@pytest.mark.parametrize("page", [*PAGES, "README.md", "examples/README.md"])
def test_every_link_leads_to_a_file(page):
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text)
    assert [name for name in targets if not ((ROOT / page).parent / name).exists()] == []


def test_the_state_machines_are_drawn_from_the_code():
    tool = runpy.run_path(str(ROOT / "tools" / "drawings.py"))
    assert tool["drawn"](PAGE) == PAGE, "run: python -m tools.drawings"
    assert PAGE.count("stateDiagram-v2") == 2


def test_every_table_has_its_line():
    sql = "\n".join(path.read_text() for path in sorted(MIGRATIONS.iterdir()))
    made = set(re.findall(r"^CREATE (?:TABLE|VIEW) (\w+)", sql, re.MULTILINE))
    assert first_column(section("Tables")) == made


def test_what_bounds_each_table_and_stream_is_said():
    page = (ROOT / "docs" / "retention.md").read_text()
    bounds = page.partition("\n## What bounds the rest\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", bounds, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert first_column(section("Tables")) - {"event_info"} <= named
    assert {config["name"] for config in stream_configs(1)} <= named


def test_every_stream_has_its_line():
    text = section("Streams and subjects")
    for config in stream_configs(1):
        (row,) = re.findall(rf"^\| `{config['name']}` .*$", text, re.MULTILINE)
        assert all(f"`{subject}`" in row for subject in config["subjects"])


def test_every_subject_has_its_line():
    sources = [path.read_text() for path in (ROOT / "pubsubflow").rglob("*.py")]
    constants = set(
        re.findall(r'"(psf\.(?:in|hb|ctl|req|log|state)\b[a-z_.]*)"', "\n".join(sources))
    )
    listed = first_column(section("Streams and subjects"))
    assert {name for name in listed if name.startswith("psf.")} == constants


def test_every_part_of_the_package_stands_in_the_layout():
    layout = section("Layout and floors")
    parts = [path for path in (ROOT / "pubsubflow").iterdir() if not path.name.startswith("_")]
    names = [f"{path.name}/" if path.is_dir() else path.name for path in parts]
    names += [f"{path.parent.name}/" for path in (ROOT / "pubsubflow").glob("*/*/__init__.py")]
    assert [name for name in names if name not in layout and name != "py.typed"] == []
