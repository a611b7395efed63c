"""Lists without options of their own are called as the parser would call them, without it."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pubsubflow.cli.main import _COMMANDS, make_app
from pubsubflow.cli.shell.parameter import leave_out_parser
from pubsubflow.cli.shell.plain import _TARGET, _UP, PLAIN, plain_call, read_options
from pubsubflow.cli.target import Target
from pubsubflow.errors import ConfigError

OPTIONS = ["--json", "--server", "--home", "--tz", "--token", "--config", "--ca", "--limit"]
VALUES = ["http://127.0.0.1:1", "a b", "", "-", "-5", "UTC", "x=y"]
WORDS = st.one_of(
    st.sampled_from([*OPTIONS, *VALUES]),
    st.builds("{}={}".format, st.sampled_from(OPTIONS), st.sampled_from(VALUES)),
)


@settings(max_examples=30)
@given(st.lists(WORDS, max_size=4))
@example(["--home=/a", "--json", "--server", "http://127.0.0.1:1"])
def test_options_are_read_as_the_parser_reads_them(words):
    options = read_options(words, _TARGET)
    if options is None:
        return
    app, line = make_app(["pools"]), ["pools", "list", *words]
    try:
        _, bound, _ = app.parse_args(line, print_error=False, exit_on_error=False)
    except ConfigError as error:  # the target's own: of a zone
        with pytest.raises(ConfigError, match=re.escape(str(error))):
            Target(**options)
    else:
        assert bound.arguments.get("target", Target()) == Target(**options)


@pytest.mark.parametrize("words", [["--limit", "5"], ["x"], ["--json", "--json"], ["--home"]])
def test_all_else_takes_the_parser(words):
    assert read_options(words, _TARGET) is None


STARTS = ["--host", "--port", "--ready-fd", "--parent", "--home", "--config", "--manifest", "--x"]
NUMBERS = ["0", "8080", "+1", "07", "1_0", "x", "", "-1", "\N{SUPERSCRIPT TWO}"]


@settings(max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*STARTS, *NUMBERS]),
            st.builds("{}={}".format, st.sampled_from(STARTS), st.sampled_from(NUMBERS)),
        ),
        max_size=4,
    )
)
@example(["--home=/a", "--port", "0", "--ready-fd", "7", "--config", "/dev/null"])
def test_a_start_is_read_as_the_parser_reads_it(words):
    options = read_options(words, _UP)
    if options is not None:
        _, bound, _ = make_app(["up"]).parse_args(
            ["up", "dags", *words], print_error=False, exit_on_error=False
        )
        assert bound.arguments == {"dags": Path("dags")} | options


def test_every_list_can_be_called_without_an_argument():
    places = [commands[PLAIN][0] for _, commands in _COMMANDS.values() if PLAIN in commands]
    for place in places:
        module, _, function = place.partition(":")
        command = getattr(import_module(f"pubsubflow.cli.commands.{module}"), function)
        parameters = inspect.signature(command).parameters
        assert "target" in parameters, place
        assert all(each.default is not each.empty for each in parameters.values()), place


def test_where_the_parser_is_there_it_is_used():
    assert not leave_out_parser()
    assert plain_call(["dags", "list"], _COMMANDS) is None


def test_no_parser_is_imported_for_a_list(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pubsubflow.cli.main", "dags", "list"],
        env={"PUBSUBFLOW_HOME": str(tmp_path), "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 3
    assert "no daemon" in shown.stderr
    imported = [line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()]
    packages = {name.partition(".")[0] for name in imported}
    assert "pubsubflow" in packages
    assert not packages & {"cyclopts", "asyncio", "aiohttp", "rich"}
