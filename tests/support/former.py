"""The former version: the last commit of protocol and schema 1, unpacked from the history."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMIT = Path(__file__).with_name("former_version.txt").read_text().strip()
_PARTS = ("pubsubflow", "triggers/src", "tests/support")


def unpack_former(folder: Path) -> Path:
    """Unpack the former version, and return its folder; skip the test where it is not there."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed: the former version cannot be built")
    known = [git, "-C", str(ROOT), "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    if subprocess.run(known, capture_output=True, check=False).returncode:
        pytest.skip(f"{COMMIT[:10]} is not in this history: a shallow clone, or no repository")
    command = [git, "-C", str(ROOT), "archive", "--format=tar", COMMIT, *_PARTS]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def former_environ(folder: Path) -> dict[str, str]:
    """Return the environment by which Python imports the former version, unpacked there."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "triggers/src")))}
