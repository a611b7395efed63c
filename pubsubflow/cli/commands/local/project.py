"""A new project folder: DAGs, their tests and a CI file."""

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from msgspec import Struct

from pubsubflow.cli import output
from pubsubflow.cli.texts import Text
from pubsubflow.errors import ConfigError

# File in the project → file of the package. Names with a dot in front do not travel in packages.
_FILES = {
    "dags/sales.py": "dags/sales.py",
    "tests/test_sales.py": "tests/test_sales.py",
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".github/workflows/dags.yml": "ci.yml",
}
_NOT_A_NAME = re.compile(r"[^a-z0-9]+")


class CreatedProject(Struct, frozen=True):
    """The new folder, in JSON."""

    folder: str
    files: list[str]


def init(folder: Path, /, *, name: str | None = None, json: bool = False) -> None:
    """Create a project folder with a DAG, a test and a CI file.

    Args:
        folder: The folder, new or with other files in it; no file is overwritten.
        name: Name of the project; that of the folder if left out.
        json: Print JSON.
    """
    place = folder.absolute()
    called = _NOT_A_NAME.sub("-", (name or place.resolve().name).lower()).strip("-") or "dags"
    present = [path for path in _FILES if (place / path).exists()]
    if present:
        raise ConfigError(
            f"nothing was created: {folder} has {', '.join(present)} already; name a new folder"
        )
    templates = files("pubsubflow.demo") / "project"
    try:
        for path, source in _FILES.items():
            text = templates.joinpath(source).read_text(encoding="utf-8")
            if source in ("pyproject.toml", "README.md"):
                text = Template(text).substitute(name=called)
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from error
    output.show_result(
        CreatedProject(str(place), list(_FILES)),
        f"{len(_FILES)} files created in {folder}",
        Text("next:", "dim"),
        f"  cd {folder}",
        "  pubsubflow dags test ingest -p rows=5   # in this process, without a daemon",
        "  python -m pytest                        # tests/test_sales.py; needs pytest",
        "  pubsubflow up                           # everything, on http://127.0.0.1:8080",
        json=json,
    )
