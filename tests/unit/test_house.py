"""House rules of language and layout hold; `python tools/house.py -v` lists what breaks them."""

from collections import Counter
from pathlib import Path

import house


def test_names_docstrings_and_pages_keep_the_rules_of_language():
    found = [f"{each.path}:{each.line}: {each.rule}: {each.text}" for each in house.findings()]
    assert found == []


def test_reasons_stand_as_comments():
    assert house.comment_share() >= 0.01


def test_folders_stay_small():
    # The fullest is cli/commands: one module a group of commands.
    count, folder = house.largest_folder()
    assert count <= 20, folder


def test_modules_of_tests_have_names_of_their_own():
    # Folders of tests are no packages: of two modules of one name one could not be imported.
    names = Counter(each.name for each in Path(__file__).parents[1].rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
