"""Software bill of materials: constraints.txt and our own package in CycloneDX JSON.

    python tools/sbom.py build/pubsubflow.cdx.json

Names, versions and package URLs of all that a known-good installation consists of, and what
`pubsubflow` depends on. Development tools are included, with the scope `excluded`.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from audit import CONSTRAINTS, ROOT, pinned


def make_bom() -> Bom:
    """Return the bill of materials."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["otel"]]
    direct = {canonicalize_name(Requirement(each).name) for each in declared}
    own = _component(project["name"], project["version"], kind=ComponentType.APPLICATION)
    own.licenses.add(LicenseExpression(project["license"]))
    bom = Bom()
    bom.metadata.component = own
    shipped = _shipped(direct)
    parts = {
        name: _component(
            name,
            str(version),
            scope=ComponentScope.REQUIRED if name in shipped else ComponentScope.EXCLUDED,
        )
        for name, version in pinned(CONSTRAINTS.read_text()).items()
    }
    bom.components.update(parts.values())
    bom.register_dependency(own, [parts[name] for name in sorted(direct & parts.keys())])
    return bom


def _component(
    name: str,
    version: str,
    *,
    kind: ComponentType = ComponentType.LIBRARY,
    scope: ComponentScope | None = None,
) -> Component:
    url = PackageURL("pypi", name=name, version=version)
    return Component(name=name, version=version, type=kind, scope=scope, purl=url, bom_ref=str(url))


def _shipped(direct: set[str]) -> set[str]:
    """Return the packages that users install: the direct ones, and what those require."""
    found: set[str] = set()
    left = sorted(direct)
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # not for this platform
            continue
        wanted = (Requirement(each) for each in required)
        left += [
            canonicalize_name(each.name)
            for each in wanted
            if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return found


def main(arguments: list[str]) -> None:
    """Write the bill of materials to the file that the first argument names, or print it."""
    text = JsonV1Dot6(make_bom()).output_as_string(indent=2) + "\n"
    if not arguments:
        sys.stdout.write(text)
        return
    path = Path(arguments[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
