"""The probe: what an interpreter has, as one line of JSON, and whether that is enough."""

import hashlib
import json
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distributions, version

_WANTED = ("apache-airflow-core", "apache-airflow-task-sdk", "msgspec")


def main() -> None:
    """Print the versions that count, and a fingerprint of all that is installed."""
    found: dict[str, str | None] = {}
    for name in _WANTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    installed = sorted(f"{each.name}=={each.version}" for each in distributions())
    fingerprint = hashlib.sha256("\n".join(installed).encode()).hexdigest()[:16]
    python = ".".join(map(str, sys.version_info[:3]))
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    facts = {"python": python, "versions": found, "fingerprint": fingerprint, "folders": folders}
    print(json.dumps(facts))  # noqa: T201
