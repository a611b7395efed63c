"""A rotation of the keyring may be killed at any point."""

import subprocess
import sys
from pathlib import Path

import pytest
from anyio import to_thread

SCRIPT = Path(__file__).parents[2] / "support" / "rotation_crashes.py"

pytestmark = pytest.mark.anyio


async def test_no_secret_is_lost_wherever_a_rotation_dies(postgres, tmp_path):
    def run():
        return subprocess.run(
            [sys.executable, SCRIPT, postgres.url, tmp_path],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = await to_thread.run_sync(run)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40  # it did die at every line of store/connections.py and keys.py
