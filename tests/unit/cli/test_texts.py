"""Texts, tables and trees: in a pipe they read as on a wide terminal without colours."""

from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from pubsubflow.cli import output
from pubsubflow.cli.texts import Grid, GridColumn, Text, Tree, plain_lines


def grid():
    made = Grid(
        [GridColumn("dag"), GridColumn("runs", right=True), GridColumn("why", wraps=False)],
        headed=True,
    )
    made.rows += [
        ["ingest", "12", Text.assemble("by ", ("hand", "bold"))],
        ["東京é", "3", ""],
        ["two\nlines", "", "one"],
    ]
    return made


def tree():
    made = Tree(Text.assemble(("all of", "green"), " these"))
    side = made.add("first")
    side.add(Text("deep", "dim"))
    side.add("two\nlines")
    made.add(Tree("second")).add("last")
    return made


@pytest.mark.parametrize("part", [grid(), tree(), Text("a\nb", "red"), "plain"])
def test_a_pipe_gets_what_a_wide_terminal_shows(part):
    file = StringIO()
    Console(file=file, width=400, markup=False, highlight=False).print(part)
    shown = [line.rstrip() for line in file.getvalue().splitlines()]
    assert [line.rstrip() for line in plain_lines(part)] == shown


def test_long_lines_are_whole_in_a_pipe():
    assert [*plain_lines("x " * 1000)] == ["x " * 1000]
    made = Grid([GridColumn("name"), GridColumn("note")], headed=False)
    made.rows.append(["n", "x" * 1000])
    assert [*plain_lines(made)] == ["n  " + "x" * 1000]


@pytest.mark.parametrize(("columns", "heading"), [(200, "run  why     host"), (110, "run  why")])
def test_a_terminal_shows_the_columns_that_it_has_room_for(monkeypatch, columns, heading):
    wide = SimpleNamespace(console=lambda: SimpleNamespace(width=columns))
    monkeypatch.setattr(output, "_terminal", wide)
    monkeypatch.setattr(output, "is_plain", lambda: False)
    listing = output.Listing("run", "why", "host", narrow=2, elastic=["why"])
    listing.row("r", "a cause", "h" * 100)
    assert next(iter(listing._grid().plain_lines())).split() == heading.split()
