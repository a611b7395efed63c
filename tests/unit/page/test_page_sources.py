"""What the page is built from: a lock without addresses, known licences, and nothing forbidden."""

import gzip
import json
import re
from pathlib import Path

import pytest

from pubsubflow.api.page.files import STATIC

WEB = Path(__file__).parents[3] / "web"
LICENCES = {"MIT", "Apache-2.0"}
ALLOWED = {
    "@esbuild",
    "@preact/signals",
    "@preact/signals-core",
    "@typescript",
    "esbuild",
    "preact",
    "typescript",
}
FORBIDDEN = re.compile(
    r"\beval\(|\bnew Function\(|\.innerHTML\b|\.outerHTML\b|insertAdjacentHTML|document\.write"
    r"|dangerouslySetInnerHTML|setAttribute\(\s*[\"']style|javascript:"
)


def lock():
    return json.loads((WEB / "package-lock.json").read_text())["packages"]


def packages():
    return {name.removeprefix("node_modules/"): each for name, each in lock().items() if name}


def test_the_lock_names_versions_and_digests_but_no_address():
    text = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert not re.search(r"https?://[^\"]*(npm|registry)", text)
    for name, package in packages().items():
        assert package["integrity"].startswith("sha512-"), name
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"]), name
    assert "omit-lockfile-registry-resolved=true" in (WEB / ".npmrc").read_text().split()


def test_every_package_is_known_and_has_a_licence_that_allows_it():
    for name, package in packages().items():
        assert name in ALLOWED or name.partition("/")[0] in ALLOWED, name
        assert package["license"] in LICENCES, name
        assert not package.get("hasInstallScript") or name == "esbuild", name


def test_versions_are_exact():
    declared = json.loads((WEB / "package.json").read_text())
    for name, version in {**declared["dependencies"], **declared["devDependencies"]}.items():
        assert packages()[name]["version"] == version


def test_native_packages_are_locked_for_every_platform():
    names = packages()
    for platform in ("linux-x64", "linux-arm64", "darwin-arm64", "darwin-x64", "win32-x64"):
        assert f"@esbuild/{platform}" in names, platform


def test_sources_use_nothing_that_the_policy_forbids():
    sources = [*WEB.glob("src/**/*.ts"), *WEB.glob("src/**/*.tsx"), WEB / "index.html"]
    assert len(sources) > 20
    for path in sources:
        text = path.read_text()
        assert not FORBIDDEN.search(text), path
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]* src=)|\son\w+=|style=", page)


@pytest.mark.skipif(not (STATIC / "digest.txt").is_file(), reason="the page is not built")
def test_what_is_built_is_small_and_whole():
    names = {path.name for path in STATIC.rglob("*") if path.is_file()}
    assert {"index.html", "icon.svg", "THIRD_PARTY.txt", "digest.txt"} <= names
    page = (STATIC / "index.html").read_text()
    linked = re.findall(r'(?:src|href)="/ui/([^"]+)"', page)
    assert len(linked) >= 3
    assert all((STATIC / each).is_file() for each in linked)
    notices = (STATIC / "THIRD_PARTY.txt").read_text()
    assert re.findall(r"^(\S+) \d+\.\d+\.\d+ \(MIT\)$", notices, re.MULTILINE) == [
        "@preact/signals",
        "@preact/signals-core",
        "preact",
    ]


IMPORT = re.compile(r"""(import\(|from|import)\s*["']\./([\w.-]+\.js)["']""")
FIRST_VIEW, ALL = 120_000, 350_000


def needed(name, sizes):
    """Return what a script and those that it imports at once come to under gzip, by name."""
    found, left = {}, [name]
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = sizes[name]
        text = (STATIC / "assets" / name).read_text()
        left += [each for kind, each in IMPORT.findall(text) if kind != "import("]
    return found


@pytest.mark.skipif(not (STATIC / "digest.txt").is_file(), reason="the page is not built")
def test_a_first_view_is_small_and_so_is_all_of_them():
    """Whichever view it is: the entry, its own code, the worker; as browsers get it."""
    scripts = (STATIC / "assets").glob("*.js")
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in scripts}
    assert sum(sizes.values()) <= ALL
    (main,) = [name for name in sizes if name.startswith("main-")]
    (worker,) = [name for name in sizes if name.startswith("stream.worker-")]
    always = {**needed(main, sizes), **needed(worker, sizes)}
    text = "".join((STATIC / "assets" / name).read_text() for name in always)
    views = {each for kind, each in IMPORT.findall(text) if kind == "import("}
    assert len(views) > 8
    # What the server names with the page is what the view would ask for.
    text = "".join(path.read_text() for path in (STATIC / "assets").glob("*.js"))
    late = {each for kind, each in IMPORT.findall(text) if kind == "import("}
    for each in json.loads((STATIC / "early.json").read_text()):
        beside = {name.removeprefix("assets/") for name in each["files"]}
        own = beside & late
        assert own, each
        assert beside == set().union(*(needed(name, sizes) for name in own)) - always.keys()
    for view in views:
        assert sum({**always, **needed(view, sizes)}.values()) <= FIRST_VIEW, view
    # What the entry imports is asked for together with it, not when it has been read.
    page = (STATIC / "index.html").read_text()
    early = set(re.findall(r'rel="modulepreload" href="/ui/assets/([^"]+)"', page))
    assert early == needed(main, sizes).keys() - {main}
