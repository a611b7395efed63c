"""The page on limits names settings with their defaults."""

import re
from pathlib import Path

import msgspec

from pubsubflow.api import ApiSettings

PAGE = Path(__file__).parents[3] / "docs" / "limits.md"


def test_settings_and_their_defaults_are_as_told():
    told = re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE.read_text(), flags=re.MULTILINE)
    settings = msgspec.to_builtins(ApiSettings())
    assert len(told) > 10
    assert told == [(name, str(settings[name])) for name, _ in told]
