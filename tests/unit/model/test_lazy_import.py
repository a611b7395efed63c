"""Modules that are imported at their first use."""

import errno
import os
import subprocess
import sys

import pytest

from pubsubflow.model.lazy_import import lazy_module

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
