"""The page about Airflow names tests that exist."""

import itertools
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = (ROOT / "docs" / "airflow.md").read_text()
FOLDERS = (ROOT, ROOT / "tests/integration/airflow", ROOT / "tests/integration/manager")


def known_tests():
    """Return the names of all tests, and of the files that hold them."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    names = {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text())}
    return names | {path.name for path in files}


def test_each_test_that_the_table_of_rules_names_exists():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 20
    assert named - known_tests() == set()
    files = set(re.findall(r"`((?:tests/\S+/)?test_\w+\.py)`", PAGE))
    assert {name for name in files if not any((each / name).exists() for each in FOLDERS)} == set()


def test_each_feature_that_works_or_not_names_a_test_that_shows_it():
    _, _, after = PAGE.partition("## What works, and what not yet\n")
    table = after[after.index("\n|") :].lstrip().splitlines()
    header, _, *features = itertools.takewhile(lambda line: line.startswith("|"), table)
    assert header == "| feature | | shown by |"
    assert len(features) > 30
    known = known_tests()
    for row in features:
        *_, shown = re.split(r"(?<!\\)\|", row.strip("| "))
        named = re.findall(r"`(test_\w+(?:\.py)?)`", shown)
        assert named, row
        assert set(named) <= known, row
