"""The threat model names tests that exist, and SECURITY.md and the docs refer to it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def test_every_test_that_holds_a_statement_exists():
    named = re.findall(r"`((?:tests/[\w/]*)?(?:test_\w+\.py)?)`", PAGE)
    names = [each for each in named if each]
    assert len(names) > 25
    for name in names:
        found = (ROOT / name).exists() or list(
            (ROOT / "tests").rglob(name.rpartition("/")[2] or "-")
        )
        assert found, name


def test_each_actor_has_a_section():
    actors = {
        "Client without a token", "Webhook sender", "Emitter", "Viewer", "Operator", "Admin",
        "DAG author", "Task at run time", "Neighbour on the host", "Holder of NATS",
        "Holder of Postgres", "Subscriber URL", "Supply chain",
    }  # fmt: skip
    assert set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE)) == actors


def test_the_other_pages_refer_to_it():
    for page in ("SECURITY.md", "README.md", "docs/security.md"):
        assert "threat-model.md" in (ROOT / page).read_text()
