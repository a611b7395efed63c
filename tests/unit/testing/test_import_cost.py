import subprocess
import sys

LATE = ("pubsubflow.testing", "pubsubflow.runner", "jsonschema")


def test_files_that_define_dags_do_not_import_what_runs_them():
    code = f"import sys, pubsubflow; print([name for name in {LATE!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
