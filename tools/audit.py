"""Audit of constraints.txt against known vulnerabilities, without a network.

    python tools/audit.py             # fails on a version that tools/advisories.toml lists
    python tools/audit.py --online    # and on those that pip-audit finds in its database

It says what it did not check: packages without an entry, and databases out of reach.
"""

import datetime as dt
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
ADVISORIES = ROOT / "tools" / "advisories.toml"
_FOUND = 1  # exit code of pip-audit when it has found a vulnerability


class Advisory(NamedTuple):
    """A vulnerability of some versions of a package."""

    package: str
    id: str
    affected: SpecifierSet


def pinned(text: str) -> dict[str, Version]:
    """Return the versions of a constraints file by normalised name."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.partition(";")[0].split("==") for line in lines if line)
    return {canonicalize_name(name.strip()): Version(number.strip()) for name, number in pairs}


def read_advisories(text: str) -> tuple[dt.date, list[Advisory]]:
    """Return the date of a file of advisories, and the advisories."""
    data = tomllib.loads(text)
    found = [
        Advisory(canonicalize_name(each["package"]), each["id"], SpecifierSet(each["affected"]))
        for each in data["advisory"]
    ]
    return data["as_of"], found


def affected(versions: Mapping[str, Version], advisories: list[Advisory]) -> Iterator[str]:
    """Yield a line for each vulnerable version."""
    for advisory in advisories:
        version = versions.get(advisory.package)
        if version is not None and advisory.affected.contains(version, prereleases=True):
            yield f"{advisory.package} {version} is affected by {advisory.id}: {advisory.affected}"


def _ask_database() -> tuple[bool, str]:
    """Run pip-audit; return whether it found something, and what is to be said."""
    if importlib.util.find_spec("pip_audit") is None:
        return False, "not checked: vulnerability databases (pip-audit is not installed)"
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-r"]
    done = subprocess.run([*command, str(CONSTRAINTS)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return False, "pip-audit found nothing"
    if done.returncode == _FOUND and "Name" in done.stdout:
        return True, done.stdout
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return False, f"not checked: vulnerability databases ({reason})"


def main(arguments: list[str]) -> int:
    """Print what is affected and what was not checked; return the exit code."""
    versions = pinned(CONSTRAINTS.read_text())
    as_of, advisories = read_advisories(ADVISORIES.read_text())
    lines = list(affected(versions, advisories))
    listed = {each.package for each in advisories}
    print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(versions)} packages, {len(advisories)} advisories as of {as_of}")
    print(f"not checked: {len(set(versions) - listed)} packages without an advisory in the file")
    found = bool(lines)
    if "--online" in arguments:
        more, text = _ask_database()
        print(text)
        found = found or more
    else:
        print("not checked: vulnerability databases (offline; --online runs pip-audit)")
    return int(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
