"""Supply chain: no version with a known vulnerability, and a valid bill of materials."""

import json
import tomllib
from pathlib import Path

from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import audit
import sbom

ROOT = Path(__file__).parents[2]


def test_no_constraint_is_a_version_with_a_known_vulnerability(capsys):
    assert audit.main([]) == 0
    said = capsys.readouterr().out
    assert "not checked: vulnerability databases" in said
    assert "packages without an advisory" in said


def test_a_vulnerable_version_is_found_under_any_spelling_of_its_name():
    text = "# set\nJinja2==3.1.5  # old\nFlask_CORS==6.0.5\nx==1; python_version<'4'\n"
    versions = audit.pinned(text)
    assert versions["x"] == Version("1")
    advisories = [
        audit.Advisory("jinja2", "CVE-1", SpecifierSet("<3.1.6")),
        audit.Advisory("flask-cors", "CVE-2", SpecifierSet("<4.0.2")),
        audit.Advisory("absent", "CVE-3", SpecifierSet(">=0")),
    ]
    (line,) = audit.affected(versions, advisories)
    assert line == "jinja2 3.1.5 is affected by CVE-1: <3.1.6"


def test_advisories_are_of_packages_that_are_installed():
    as_of, advisories = audit.read_advisories(audit.ADVISORIES.read_text())
    assert as_of.year >= 2026
    known = set(audit.pinned(audit.CONSTRAINTS.read_text())) | {"setuptools"}
    assert {each.package for each in advisories} <= known


def test_the_bill_of_materials_is_valid_and_complete():
    text = JsonV1Dot6(sbom.make_bom()).output_as_string()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    pinned = audit.pinned(audit.CONSTRAINTS.read_text())
    assert {each["name"]: each["version"] for each in bom["components"]} == {
        name: str(version) for name, version in pinned.items()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = bom["metadata"]["component"]
    assert (own["name"], own["version"]) == (project["name"], project["version"])
    scopes = {each["name"]: each["scope"] for each in bom["components"]}
    assert scopes["asyncpg"] == scopes["yarl"] == scopes["multidict"] == "required"
    assert scopes["pytest"] == scopes["ruff"] == "excluded"
