"""Makes the environments with Airflow in which tests of its bridge run, once each.

    python -m tools.airflow_env 3.3.2     # at most 60 s; else the reason is kept for pytest
    python -m tools.airflow_env --all     # every release, however long it takes, or fails
    python -m tools.airflow_env --providers   # with providers beside, or the reason is kept
    python -m tools.airflow_env --systems     # with those of the system tests' files, likewise

An environment is `airflow-HASH` in the virtual environment of development, for the hash of a file
in `tests/integration/airflow/requirements` and of the version of Python. One with providers is over
that of its release: it has what its file in `requirements/providers` names, and nothing twice. So
is one of `requirements/systems` over that with providers: it takes 2 GB and minutes.
"""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "tests" / "integration" / "airflow" / "requirements"
PROVIDERS = "providers/"
SYSTEMS = "systems/"
# What the environment of a kind lies over.
_BELOW = {PROVIDERS: "", SYSTEMS: PROVIDERS}
_COMPLETE = ".complete"
_SECONDS = 60.0
_LINES = 400


class NotMadeError(Exception):
    """An environment could not be made; the text says why."""


def releases() -> list[str]:
    """Return the releases of Airflow that are tested, the newest last."""
    names = [file.stem for file in REQUIREMENTS.glob("*.txt")]
    return sorted(names, key=lambda name: [int(part) for part in name.split(".")])


def providers() -> str:
    """Return the name of the environment with providers, over the newest release."""
    return f"{PROVIDERS}{releases()[-1]}"


def systems() -> str:
    """Return the name of the environment for the files of system tests, over that of providers."""
    return f"{SYSTEMS}{releases()[-1]}"


def requirements(release: str) -> list[Path]:
    """Return the files of what an environment has, its own first, then of those it lies over."""
    return [REQUIREMENTS / f"{name}.txt" for name in _layers(release)]


def _layers(release: str) -> list[str]:
    for kind, below in _BELOW.items():
        if release.startswith(kind):
            return [release, *_layers(below + release.removeprefix(kind))]
    return [release]


def place(release: str) -> Path:
    """Return the folder of a release's environment."""
    content = b"".join(file.read_bytes() for file in requirements(release))
    python = ".".join(map(str, sys.version_info[:2]))
    digest = hashlib.sha256(python.encode() + content).hexdigest()[:12]
    return Path(sys.prefix) / f"airflow-{digest}"


def python_of(release: str) -> Path | None:
    """Return the interpreter of a release's environment; None if that is not there."""
    folder = place(release)
    return folder / "bin" / "python" if (folder / _COMPLETE).exists() else None


def reason(release: str) -> str:
    """Return why the environment of a release is not there."""
    try:
        return _reason_file(release).read_text("utf-8").strip()
    except FileNotFoundError:
        return "`make test` and `make airflow` make it"


def make(release: str, seconds: float | None) -> None:
    """Make the environment of a release, if it is not there.

    Args:
        release: A file of that name is in the folder of requirements.
        seconds: How long that may take; None for as long as it takes.

    Raises:
        NotMadeError: It cannot be installed, or not in that time; the reason is kept for the tests.
    """
    if python_of(release) is not None:
        return
    folder, end = place(release), None if seconds is None else time.monotonic() + seconds
    # Our pip installs there: one of its own is not needed.
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    # All that is needed is in the file: nothing is resolved.
    pip += ["--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps", "--retries", "1"]
    pip += ["-r", str(REQUIREMENTS / f"{release}.txt")]
    try:
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], end)
        _lay_over(folder, _layers(release)[1:])
        _run(pip, end)
    except NotMadeError as error:
        shutil.rmtree(folder, ignore_errors=True)
        _reason_file(release).write_text(f"{error}\n", "utf-8")
        raise
    (folder / _COMPLETE).touch()
    _reason_file(release).unlink(missing_ok=True)


def _lay_over(folder: Path, layers: list[str]) -> None:
    """Have an environment find what those have that it lies over, if there are any."""
    inside = ("lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages")
    for each in layers:
        if python_of(each) is None:
            raise NotMadeError(f"Airflow {each} is not there: {reason(each)}")
    lines = [f"{place(each).joinpath(*inside)}\n" for each in layers]
    if lines:
        folder.joinpath(*inside, "airflow.pth").write_text("".join(lines), "utf-8")


def _run(command: list[str], end: float | None) -> None:
    rest = None if end is None else max(end - time.monotonic(), 0.1)
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=rest)
    except subprocess.TimeoutExpired:
        raise NotMadeError(f"installing takes longer than {_SECONDS:g} s: `make airflow`") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines
        text = errors[-1] if errors else f"exit code {done.returncode}"
        raise NotMadeError(text[:_LINES])


def _reason_file(release: str) -> Path:
    return place(release).with_suffix(".reason")


def _wanted(option: str) -> list[str]:
    """Return what an option or the name of a release asks for, in the order of making."""
    if option == "--all":
        return releases()
    if option == "--providers":
        return [releases()[-1], providers()]
    if option == "--systems":
        return [releases()[-1], providers(), systems()]
    return [option]


def main(arguments: list[str]) -> int:
    """Make what is named; return 1 if all had to be there and one is not."""
    for option in arguments:
        for release in _wanted(option):
            try:
                make(release, None if option.startswith("--") else _SECONDS)
            except NotMadeError as error:
                print(f"no tests with Airflow {release}: {error}")
                if option == "--all":
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
