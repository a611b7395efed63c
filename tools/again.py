"""Run again, alone, tests whose wait ran out of time: `again.py REPORT`, a report in JUnit's form.

A busy machine makes a wait too long, but no result wrong. So what is repeated is a timeout alone,
once, without neighbours, and it is said; and never one of the campaigns, where a run that does not
end may be an event that was lost.
"""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

_MOST = 3
_NEVER = ("tests/faults/", "tests/stateful/")


def failures(report: Path) -> dict[str, str]:
    """Return the tests that failed, each by the id that pytest runs it by, with its message."""
    return {
        f"{case.attrib['file']}::{case.attrib['name']}": trouble.attrib.get("message", "")
        for case in ET.parse(report).iter("testcase")  # noqa: S314 - our own file
        for trouble in (*case.iter("failure"), *case.iter("error"))
        if "file" in case.attrib
    }


def repeatable(failed: dict[str, str]) -> bool:
    """Return whether all failures are a few waits that ran out of time."""
    return 0 < len(failed) <= _MOST and all(
        message.startswith("TimeoutError") and not test.startswith(_NEVER)
        for test, message in failed.items()
    )


def main(report: Path) -> int:
    """Run them; return pytest's exit code, 1 where there is anything that must not be repeated."""
    failed = failures(report)
    if not repeatable(failed):
        return 1
    print(f"{len(failed)} timed out on a busy machine, run again alone:", *failed, sep="\n  ")
    return subprocess.run([sys.executable, "-m", "pytest", *failed], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
