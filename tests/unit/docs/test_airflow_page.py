"""The page about Airflow names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent
PAGE = (ROOT / "docs" / "airflow.md").read_text()
FOLDERS = (ROOT, ROOT / "tests/integration/airflow", ROOT / "tests/integration/manager")


def test_each_test_that_the_table_of_rules_names_exists():
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    known = {name for text in texts for name in re.findall(r"def (test_\w+)", text)}
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 20
    assert named - known == set()
    files = set(re.findall(r"`((?:tests/\S+/)?test_\w+\.py)`", PAGE))
    assert {name for name in files if not any((each / name).exists() for each in FOLDERS)} == set()
