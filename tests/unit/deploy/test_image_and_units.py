"""The Containerfile and the units of systemd: what they promise, and that systemd reads them."""

import re
import shutil
import subprocess

import pytest

from pubsubflow.worker import WorkerSettings
from support.compose import ROOT

CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SECONDS_TO_STOP = 10


def instructions():
    """Return the last stage of the Containerfile, as (instruction, rest)."""
    lines = re.sub(r"(?m)^#.*\n", "", CONTAINERFILE).replace("\\\n", " ").splitlines()
    found = [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]
    last = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def test_the_image_does_not_run_as_root():
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users == ["10001:10001"]  # a number: Kubernetes knows by it that it is not root


def test_the_image_holds_wheels_and_no_sources():
    copied = [rest for name, rest in instructions() if name == "COPY"]
    assert copied == ["--from=wheels /opt/pubsubflow /opt/pubsubflow"]
    assert "--only-binary :all:" in CONTAINERFILE
    assert "-c constraints.txt" in CONTAINERFILE


def test_what_the_build_copies_is_there():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    wanted = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    assert all((ROOT / each).exists() for each in wanted)


def unit(path):
    """Return the settings of a unit, by name; a setting may stand several times."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_gives_tasks_time_to_end_and_takes_rights_away(path):
    settings = unit(path)
    drain = WorkerSettings().drain_seconds
    assert int(settings["TimeoutStopSec"][0]) > drain + SECONDS_TO_STOP
    assert settings["KillMode"] == ["mixed"]  # the daemon stops its children, in order
    assert settings["Restart"] == ["always"]
    assert settings["User"] == ["pubsubflow"]
    assert settings["NoNewPrivileges"] == ["yes"]
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["CapabilityBoundingSet"] == [""]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_reads_the_units():
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *UNITS],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # The program is installed where the units are; here it need not be.
    lines = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    mine = [line for line in lines if "pubsubflow" in line]
    assert mine == []
