"""Modules that are imported at their first use."""

import errno
import os
import subprocess
import sys
from importlib import import_module

import pytest

from pubsubflow.model.lazy_import import defer_package, deferred, lazy_module

SHORT_OF_FILES = """
import errno, os
from pubsubflow.model.lazy_import import lazy_module

cel = lazy_module("cel")
files = []
try:
    while True:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    cel.compile("true")
except OSError as error:
    assert error.errno == errno.EMFILE, error
    print("short of files")
for descriptor in files:
    os.close(descriptor)
print(cel.compile("1 + 1").execute({}))
"""


def test_an_import_that_failed_is_tried_again():
    code = f"ulimit -n 40; exec {sys.executable} -c '{SHORT_OF_FILES}'"
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "short of files\n2\n"


def test_a_library_that_cannot_be_opened_for_want_of_files_is_such_a_shortage(
    tmp_path, monkeypatch
):
    text = f"libx.so: cannot open shared object file: {os.strerror(errno.EMFILE)}"
    (tmp_path / "links_a_library.py").write_text(f"raise ImportError({text!r})")
    monkeypatch.syspath_prepend(tmp_path)
    module = lazy_module("links_a_library")
    with pytest.raises(OSError, match="links_a_library") as raised:
        module.anything  # noqa: B018 # its use is the import
    assert raised.value.errno == errno.EMFILE


def test_a_module_that_is_not_installed_is_said_at_once():
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        lazy_module("there_is_no_such_module")


def test_a_module_that_is_loaded_is_itself():
    assert lazy_module("sys") is sys


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package whose own code runs only after its file `allowed` exists."""
    folder = tmp_path / "gathers"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from pathlib import Path\n"
        "from . import heavy\n"
        "if not Path(__file__).with_name('allowed').exists():\n"
        "    raise ImportError('not yet')\n"
        "from .heavy import weight\n"
        "version = 'own'\n"
    )
    (folder / "light.py").write_text("from . import other, version\nknown = version\n")
    (folder / "other.py").write_text("")
    (folder / "heavy.py").write_text("weight = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [each for each in sys.modules if each.partition(".")[0] == "gathers"]:
        del sys.modules[name]


def test_a_deferred_package_runs_its_code_when_a_name_is_used_and_again_if_that_failed(package):
    defer_package("gathers", version="given")
    gathers = import_module("gathers")
    assert import_module("gathers.light").known == "given"
    assert "gathers.heavy" not in sys.modules
    with pytest.raises(ImportError, match="not yet"):
        gathers.weight  # noqa: B018 # its use is the import
    (package / "allowed").touch()
    assert (gathers.weight, gathers.version) == (3, "own")
    with pytest.raises(AttributeError, match="nothing"):
        gathers.nothing  # noqa: B018


def test_a_package_that_is_loaded_is_not_deferred(package):
    (package / "allowed").touch()
    loaded = import_module("gathers")
    defer_package("gathers", version="given")
    assert sys.modules["gathers"] is loaded
    assert loaded.version == "own"


def test_a_deferred_module_is_imported_when_its_package_uses_it(package):
    (package / "allowed").touch()
    (package / "__init__.py").write_text("import gathers.heavy\n")
    with deferred("gathers.heavy"):
        gathers = import_module("gathers")
    assert "gathers.heavy" not in sys.modules
    assert gathers.heavy.weight == 3
    assert gathers.heavy is sys.modules["gathers.heavy"]
