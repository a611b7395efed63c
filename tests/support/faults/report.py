"""Report of rounds as a table: `python tests/support/faults/report.py .work/faults.jsonl`."""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

import msgspec

HEAD = "| what | daemons | rounds | runs | tasks | repeated | settled, s | longest pause, s |"


def table(lines: list[bytes]) -> str:
    """Return one row for each fault and number of daemons; times are median (longest)."""
    rounds = defaultdict(list)
    for line in lines:
        report = msgspec.json.decode(line)
        if "fault" not in report:  # a restore, which measures other things
            continue
        rounds[report["fault"], report["daemons"]].append(report)
    rows = [HEAD, "|" + " --- |" * (HEAD.count("|") - 1)]
    for (fault, daemons), found in sorted(rounds.items()):
        sums = [sum(each[name] for each in found) for name in ("runs", "tasks", "repeated")]
        times = [
            f"{median(values):.1f} ({max(values):.1f})"
            for name in ("settled_seconds", "longest_pause_seconds")
            for values in [[each[name] for each in found]]
        ]
        columns = (fault, daemons, len(found), *(f"{number:,}" for number in sums), *times)
        rows.append("| " + " | ".join(map(str, columns)) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_bytes().splitlines()))
