"""Parsers of option values, output, and exit codes of errors."""

from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
from cyclopts import CycloptsError

from pubsubflow.cli import output
from pubsubflow.cli.error_report import exit_code
from pubsubflow.cli.main import _COMMANDS, run
from pubsubflow.cli.parsers import moment, pairs, span
from pubsubflow.cli.target import Target
from pubsubflow.cli.zone import _local_zone, zone_name
from pubsubflow.errors import (
    BusUnavailable,
    ConfigError,
    DefinitionError,
    InvalidInput,
    NotFound,
    ServiceStopped,
    StoreUnavailable,
)


def test_values_of_pairs_are_json_or_else_text():
    given = pairs('{"a": 0, "b": 1}', ["a=2", "day=2026-11-20", "flag=true", "eq=x=y"], "set")
    assert given == {"a": 2, "b": 1, "day": "2026-11-20", "flag": True, "eq": "x=y"}


@pytest.mark.parametrize(
    ("whole", "single"), [("[1]", []), ("{", []), (None, ["a"]), (None, ["=a"])]
)
def test_malformed_pairs_are_refused(whole, single):
    with pytest.raises(ConfigError):
        pairs(whole, single, "set")


def test_a_moment_without_a_zone_is_local():
    assert moment(None) is None
    assert moment("2026-11-20").tzinfo is not None
    assert moment("2026-11-20T01:00+01:00") == datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", 0),
        ("-90s", 90),
        ("-2h", 7200),
        ("-1d12h", 129_600),
        ("-1w", 604_800),
        ("1d", 86_400),
    ],
)
def test_a_moment_may_be_relative_to_now(text, seconds):
    now = datetime(2026, 11, 20, tzinfo=UTC)
    assert (now - moment(text, now)).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["yesterday", "2", "-2", "-h", "-2h3", "2026-13-01", "-99999999w", ""]
)
def test_malformed_moments_are_refused(text):
    with pytest.raises(ConfigError, match="write 2026-11-20"):
        moment(text)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServiceStopped("x"), 1),
        (ConfigError("x"), 2),
        (InvalidInput("x"), 2),
        (DefinitionError("x"), 2),
        (NotFound("run", "x"), 2),
        (CycloptsError(), 2),
        (StoreUnavailable("x"), 3),
        (BusUnavailable("x"), 3),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12 ms"), (1.25, "1.2 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (-1, "0 ms")],
)
def test_durations(seconds, text):
    start = datetime(2026, 11, 20, tzinfo=UTC)
    assert output.duration(start, start + timedelta(seconds=seconds)) == text
    assert output.duration(start, None) == ""


@pytest.mark.parametrize(
    ("name", "shown", "summer"),
    [
        ("Europe/Warsaw", "2026-01-02 04:04:05 CET", "2026-07-01 02:00:00 CEST"),
        ("UTC", "2026-01-02 03:04:05 UTC", "2026-07-01 00:00:00 UTC"),
        ("Asia/Kathmandu", "2026-01-02 08:49:05 +0545", "2026-07-01 05:45:00 +0545"),
    ],
)
def test_times_are_in_one_zone_and_it_is_named(name, shown, summer, capsys):
    def listed():
        Target(tz=name)
        table = output.Listing("run", "created", "ended", times=["created", "ended"])
        table.row("1", output.brief(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)), None)
        table.show(none="")
        assert output.moment(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == shown
        assert output.moment(datetime(2026, 7, 1, tzinfo=UTC)) == summer

    copy_context().run(listed)
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "created", f"({name})", "ended"]
    assert row.split() == ["1", *shown.rsplit(":", 1)[0].split()]


def test_an_unknown_zone_is_an_error(capsys):
    assert run(["runs", "list", "--tz", "Mars/Olympus"]) == 2
    assert "'Mars/Olympus' is not a time zone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "name"), [("Europe/Warsaw", "Europe/Warsaw"), (":UTC", "UTC"), ("", None)]
)
def test_without_an_option_the_zone_is_that_of_the_machine(variable, name, monkeypatch):
    monkeypatch.setenv("TZ", variable)
    _local_zone.cache_clear()
    try:
        assert zone_name() == name if name else zone_name()
    finally:
        _local_zone.cache_clear()


def test_an_internal_error_is_one_line_too(monkeypatch, capsys):
    def explode(*_, **__):
        raise ExceptionGroup("g", [ExceptionGroup("h", [RuntimeError("two\nlines")])])

    monkeypatch.setattr(
        "pubsubflow.cli.main.make_app", lambda _: SimpleNamespace(parse_args=explode)
    )
    assert run([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "two lines (RuntimeError" in said
    with pytest.raises(ExceptionGroup):
        run([], debug=True)


NAMED = {
    "tasks list": ["RUN"],
    "runs mark": ["success"],
    "tasks mark": ["success"],
    "backfills show": ["ID"],
    "checks show": ["CHECK"],
    "dags versions": ["DAG"],
}


def limited_commands():
    for group, (_, commands) in _COMMANDS.items():
        for name, (function, _) in commands.items():
            module, _, attribute = function.partition(":")
            command = getattr(import_module(f"pubsubflow.cli.commands.{module}"), attribute)
            if "limit" in signature(command).parameters:
                yield f"{group} {name}"


@pytest.mark.parametrize("command", sorted(limited_commands()))
def test_a_list_of_less_than_one_is_an_error(command, capsys):
    for limit in ("-1", "0"):
        # Further arguments are of no account: the limit is read before they are used.
        of = NAMED.get(command, [])
        assert run([*command.split(), *of, "--limit", limit]) == 2
        assert "Must be >= 1" in capsys.readouterr().err


def test_json_lists_are_json(capfdbinary):
    output.show_list([])
    output.show_list([{"a": 1}, {"a": Path.__name__}])
    assert capfdbinary.readouterr().out == b'[]\n[\n{"a":1},\n{"a":"Path"}\n]\n'


def test_a_length_of_time_has_units():
    assert span("90d") == timedelta(days=90)
    assert span("1d12h") == timedelta(hours=36)
    for nonsense in ("", "soon", "90", "-1d", "1d x", "9" * 30 + "d"):
        with pytest.raises(ConfigError, match=r"length of time|too long"):
            span(nonsense)
