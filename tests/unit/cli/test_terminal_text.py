"""Text of strangers in the terminal: escape sequences are shown, not sent."""

import json
import os
import subprocess
import sys

import pytest

from pubsubflow.terminal_text import terminal_safe, terminal_safe_json, terminal_safe_line

HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\x7fe\u202ef\rg\x08h\x00"
SHOWN = "a\\x1b[2Jb\\x1b]0;title\\x07c\\x9b31md\\x7fe\\u202ef\\rg\\x08h\\x00"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("Zürich → 東京 🙂", "Zürich → 東京 🙂"),
        ("no\u2028break\u2066", "no\\u2028break\\u2066"),
    ],
)
def test_control_characters_become_escapes(text, shown):
    assert terminal_safe(text) == terminal_safe_line(text) == shown


def test_lines_and_tabs_stay_only_in_texts_of_several_lines():
    assert terminal_safe("a\tb\nc") == "a\tb\nc"
    assert terminal_safe_line("a\tb\nc") == "a\\tb\\nc"


def test_json_has_no_control_character_and_the_same_value():
    value = {HOSTILE: [HOSTILE]}
    data = terminal_safe_json(json.dumps(value, ensure_ascii=False).encode())
    assert not set(data.decode()) & set(HOSTILE) - set("abcdefgh[2J]0;title31m")
    assert json.loads(data) == value


PROGRAM = """
import sys
from rich.panel import Panel
from pubsubflow.cli import output
from pubsubflow.cli.texts import Text, Tree
hostile = sys.argv[1].encode().decode("unicode_escape")
listing = output.Listing("name", "object", elastic=["object"])
listing.row(hostile, hostile + chr(10) + "forged row")
listing.row(Text(hostile, "red"), None)
listing.show(none="")
tree = Tree(hostile)
tree.add(Text.assemble((hostile, "dim"), hostile))
output.show(hostile, Text(hostile, "bold"), tree, Panel(hostile), output.facts([("x", hostile)]))
output.show_json({hostile: hostile})
output.show_list([hostile])
output.show_line(hostile)
output.warn(hostile)
"""


@pytest.mark.parametrize("terminal", ["1", ""])
def test_no_way_to_print_sends_what_strangers_wrote(terminal):
    environ = {**os.environ, "FORCE_COLOR": terminal, "COLUMNS": "300", "TERM": "xterm-256color"}
    escaped = HOSTILE.encode("unicode_escape").decode()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, escaped], capture_output=True, check=True, env=environ
    )
    text = done.stdout.decode() + done.stderr.decode()
    assert ("\x1b[1m" in text) == bool(terminal)  # our own styles are sent to a terminal
    for sequence in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\x7f", "\u202e", "\r", "\x08", "\x00"):
        assert sequence not in text
    assert text.count("\\x1b[2J") > 8
    assert not any(line.startswith("forged row") for line in text.splitlines())


def test_the_log_of_a_daemon_in_a_terminal_escapes_what_strangers_wrote():
    program = (
        "import logging, sys, structlog\n"
        "from pubsubflow.config import LogSettings\n"
        "from pubsubflow.logging_setup import set_up_logging\n"
        "set_up_logging(LogSettings(format='console'))\n"
        "hostile = 'a\\x1b[2J\\x9b\\rb'\n"
        "structlog.get_logger().info('x.happened', name=hostile)\n"
        "logging.getLogger('library').warning('failed: %s', hostile)\n"
        "try:\n"
        "    raise ValueError(hostile)\n"
        "except ValueError:\n"
        "    structlog.get_logger().exception('x.failed', path=hostile)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    text = done.stderr.decode()
    assert not {"\x1b", "\x9b", "\r"} & set(text)
    assert text.count("\\x1b[2J") == 4
    assert "ValueError" in text
