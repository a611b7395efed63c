"""Freezing of migrations: a release records their checksums, and from then on none may change.

Run at a release, as `python -m tools.freeze_migrations`: migrations without a line in
`checksums.txt` get one. With `--check` nothing is written, and one without a line is an error.
"""

import argparse
import sys
from pathlib import Path

from pubsubflow.store.migrate import Migration, load_migrations

CHECKSUMS = Path("pubsubflow/store/migrations/checksums.txt")


def read_frozen(path: Path = CHECKSUMS) -> dict[str, str]:
    """Return the released migrations: name → SHA-256, in the order of the file."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: checksum for checksum, name in lines}


def not_frozen(frozen: dict[str, str]) -> list[Migration]:
    """Return the migrations that no release has frozen."""
    return [each for each in load_migrations() if each.name not in frozen]


def main() -> int:
    """Freeze the migrations, or check that all are frozen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if one is not frozen")
    check = parser.parse_args().check
    new = not_frozen(read_frozen())
    for each in new:
        print(f"not frozen: {each.name}" if check else f"frozen: {each.name}")
    if not check:
        with CHECKSUMS.open("a") as file:
            file.writelines(f"{each.checksum}  {each.name}\n" for each in new)
    return 1 if check and new else 0


if __name__ == "__main__":
    sys.exit(main())
