"""Migrations: what is released never changes, and what is new leaves earlier daemons working."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

import freeze_migrations
from freeze_migrations import not_frozen, read_frozen
from pubsubflow.store.migrate import load_migrations
from support.migrations import breaking_statements

ROOT = Path(__file__).parents[2]
INITIAL = "6c2a75089bb2285c38213029395eaac87d36516b303b71e2031cc13582458354"


def test_the_initial_migration_is_as_it_was_released():
    assert load_migrations()[0].name == "0001_initial.sql"
    assert load_migrations()[0].checksum == INITIAL
    assert read_frozen()["0001_initial.sql"] == INITIAL


def test_a_frozen_migration_is_there_and_never_changes():
    """It was applied to databases: mend what is wrong with it by a further migration."""
    found = {each.name: each.checksum for each in load_migrations()}
    assert {name: found.get(name) for name in read_frozen()} == read_frozen()


def test_migrations_are_frozen_in_order():
    frozen = read_frozen()
    assert list(frozen) == sorted(frozen)
    assert all(each.name > max(frozen) for each in not_frozen(frozen))


def test_a_migration_leaves_earlier_daemons_working_or_says_which_it_breaks():
    """It only adds, or has a line `-- compatible from:` with its own number at most."""
    for each in load_migrations()[1:]:
        assert each.compatible_from <= each.number
        if each.compatible_from == 1:
            assert breaking_statements(each.text) == [], each.name


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE run DROP COLUMN error;",
        "ALTER TABLE run\n    RENAME COLUMN error TO failure;",
        "ALTER TABLE run ADD COLUMN a int NOT NULL;",
        "ALTER TABLE run ADD COLUMN a int NOT NULL DEFAULT 0, ADD b int NOT NULL;",
        "ALTER TABLE run ALTER COLUMN id TYPE text;",
        "ALTER TABLE run ALTER COLUMN error SET NOT NULL;",
        "ALTER TABLE run ADD CONSTRAINT c CHECK (state <> '');",
        "CREATE UNIQUE INDEX run_one ON run (dag);",
        "SELECT 1; DROP TABLE run;",
        "DELETE FROM run;",
    ],
)
def test_what_breaks_earlier_daemons_is_found(text):
    assert len(breaking_statements(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE more (id int NOT NULL); CREATE UNIQUE INDEX more_one ON more (id);",
        "-- DROP TABLE run;\nALTER TABLE run ADD COLUMN a text NOT NULL DEFAULT '', ADD b int;",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DROP TABLE t; END $$;",
        "CREATE INDEX run_by_error ON run (error) WHERE error <> 'a;DROP TABLE b';",
        "ALTER TABLE run SET (fillfactor = 70); UPDATE run SET error = '' WHERE error IS NULL;",
    ],
)
def test_what_only_adds_is_allowed(text):
    assert breaking_statements(text) == []


def test_a_release_freezes_what_is_new(tmp_path, monkeypatch, capsys):
    path = tmp_path / "checksums.txt"
    first = load_migrations()[0]
    path.write_text("")
    monkeypatch.setattr(freeze_migrations, "CHECKSUMS", path)
    monkeypatch.setattr(freeze_migrations, "load_migrations", lambda: [first])
    monkeypatch.setattr(freeze_migrations, "read_frozen", lambda: read_frozen(path))
    monkeypatch.setattr(sys, "argv", ["freeze_migrations", "--check"])
    assert freeze_migrations.main() == 1
    assert path.read_text() == ""
    monkeypatch.setattr(sys, "argv", ["freeze_migrations"])
    assert freeze_migrations.main() == 0
    assert read_frozen(path) == {first.name: first.checksum}
    monkeypatch.setattr(sys, "argv", ["freeze_migrations", "--check"])
    assert freeze_migrations.main() == 0
    assert capsys.readouterr().out.split() == ["not", "frozen:", first.name, "frozen:", first.name]


def test_a_dated_release_has_frozen_all_its_migrations():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    heading = re.search(rf"^## {re.escape(version)}\b(.*)$", _changelog(), re.MULTILINE)
    assert heading is not None
    if "unreleased" not in heading[1].lower():
        assert not_frozen(read_frozen()) == []


def _changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()
