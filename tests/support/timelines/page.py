"""Parser of a page: its code, the scenarios in comments, and the timelines drawn of them.

A scenario is a comment between a Python block and the `text` block that is drawn from it:

    <!-- timeline
    takes 00:30                      settings: how long runs are active, `limit` of rounds, `day`
    09:00 o1 rows=5                  an event of the dataset whose name begins with o; its extra
    Sat 10:00 r1 partition=eu        not extra: `partition`, `time` and `hours`
    11:00 pause report               a person's action: deploy, pause, unpause, replay, backfill …
    until 12:00                      pass the time
    -->
"""

import json
import re
import shlex
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

BLOCKS = re.compile(
    r"```python\n(?P<code>.*?)```|<!-- timeline\n(?P<scenario>.*?)-->\n+```text\n(?P<drawn>.*?)```",
    re.DOTALL,
)
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LABEL = re.compile(r"([a-z]+)(\d+)(?:\.\.[a-z]+(\d+))?\Z")


@dataclass(frozen=True)
class Step:
    """A line of a scenario: an event, or a person's action."""

    at: datetime
    words: tuple[str, ...]
    options: dict[str, object]


@dataclass
class Scenario:
    """Steps with their moments, and settings."""

    day: date = date(2026, 11, 20)
    takes: timedelta = timedelta(0)
    limit: int = 100
    datasets: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    @property
    def begins(self) -> datetime:
        return self.steps[0].at - timedelta(minutes=1)

    def moment(self, text: str) -> datetime:
        """Return `09:00` on the first day, `Sat 09:00` from then on, or `2026-11-20`."""
        if "-" in text:
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        name, _, clock = text.rpartition(" ")
        later = (DAYS.index(name) - self.day.weekday()) % 7 if name else 0
        hours, minutes = clock.split(":")
        midnight = datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)
        return midnight + timedelta(days=later, hours=int(hours), minutes=int(minutes))


@dataclass(frozen=True)
class Example:
    """A timeline of the page."""

    line: int
    code: str
    scenario: Scenario
    drawn: str
    span: tuple[int, int]


def examples(page: str) -> list[Example]:
    """Return the timelines of a page, each with the code that leads to it.

    The first Python block belongs to all.
    """
    found = []
    shared, code = "", ""
    for block in BLOCKS.finditer(page):
        if block["code"] is not None:
            shared, code = shared or block["code"], block["code"]
            continue
        line = page.count("\n", 0, block.start("scenario")) + 1
        text = shared if code is shared else f"{shared}\n{code}"
        scenario, drawn = read(block["scenario"]), block["drawn"]
        found.append(Example(line, text, scenario, drawn, block.span("drawn")))
    return found


def read(text: str) -> Scenario:
    """Return a scenario."""
    scenario = Scenario()
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        match words:
            case []:
                pass
            case ["takes", length]:
                hours, minutes = length.split(":")
                scenario.takes = timedelta(hours=int(hours), minutes=int(minutes))
            case ["limit", rounds]:
                scenario.limit = int(rounds)
            case ["day", day]:
                scenario.day = date.fromisoformat(day)
            case ["dataset", name, uri]:
                scenario.datasets[name] = uri
            case _:
                scenario.steps.append(_step(scenario, words))
    return scenario


def _step(scenario: Scenario, words: list[str]) -> Step:
    clock = 2 if words[0] in DAYS else 1
    at = scenario.moment(" ".join(words[:clock]))
    options = dict(word.split("=", 1) for word in words[clock:] if "=" in word)
    plain = tuple(word for word in words[clock:] if "=" not in word)
    return Step(at, plain, {name: _value(value) for name, value in options.items()})


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
