"""Virtual environments of the peers, one for each list of pinned packages, kept in a cache."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from msgspec import Struct

REQUIREMENTS = Path(__file__).parent / "requirements"
_COMPLETE = "complete"


def cache_folder() -> Path:
    """Return where environments are kept by default."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pubsubflow-peers"


class Environment(Struct, frozen=True):
    """An interpreter with a peer installed.

    Attributes:
        python: The interpreter.
        version: Of the peer.
    """

    python: Path
    version: str

    def program(self, name: str) -> str:
        """Return the path of a program that the peer installs."""
        return str(self.python.parent / name)


def pinned_version(requirements: str) -> str:
    """Return the version of the first package of a requirements file, the peer itself."""
    lines = [line.strip() for line in requirements.splitlines()]
    first = next(line for line in lines if line and not line.startswith("#"))
    return first.partition("==")[2]


def environment(name: str, cache: Path) -> Environment:
    """Return a peer's environment, which is made if the cache has none of these packages.

    Args:
        name: The requirements file is `requirements/NAME.txt`.
        cache: Folder of environments; one that is not complete is made anew.

    Raises:
        CalledProcessError: A package cannot be installed.
    """
    file = REQUIREMENTS / f"{name}.txt"
    text = file.read_text("utf-8")
    digest = hashlib.sha256(f"{platform.python_version()}\n{text}".encode()).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / _COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, symlinks=True)
        # Nothing is compiled: the start that does not count compiles what is imported.
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile"]
        subprocess.run([*pip, "--quiet", "-r", str(file)], check=True)
        (folder / _COMPLETE).touch()
    return Environment(python, pinned_version(text))
