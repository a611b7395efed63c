"""The build of the page: only when its sources have changed, and never in the way of the rest."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def backend(tmp_path, monkeypatch):
    """The backend, on sources and an output folder of the test's own."""
    path = ROOT / "web" / "backend" / "page_backend.py"
    spec = importlib.util.spec_from_file_location("page_backend", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("PUBSUBFLOW_PAGE", raising=False)
    module.WEB, module.OUT = tmp_path / "web", tmp_path / "package" / "static"
    (module.WEB / "src").mkdir(parents=True)
    (module.WEB / "src" / "main.ts").write_text("one")
    module.runs = []

    def run(command, folder):
        module.runs.append([Path(part).name for part in command])
        if command[1].endswith("build.mjs"):
            (folder / "out" / "assets").mkdir(parents=True)
            (folder / "out" / "index.html").write_text((folder / "src" / "main.ts").read_text())

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "_node", lambda: ("node", "npm-cli.js"))
    monkeypatch.setattr(module, "_setuptools", Setuptools)
    return module


class Setuptools:
    """Requires nothing."""

    def __getattr__(self, _):
        return lambda _: []


def fail(backend, monkeypatch):
    def run(*_):
        raise backend.PageError("npm-cli.js ci failed: the registry is out of reach")

    monkeypatch.setattr(backend, "_run", run)


def test_it_is_built_once_and_again_when_a_source_has_changed(backend):
    assert backend.is_stale()
    backend.build_page()
    assert [command[:3] for command in backend.runs] == [
        ["node", "npm-cli.js", "ci"],
        ["node", "build.mjs", "out"],
    ]
    assert "--ignore-scripts" in backend.runs[0]
    assert not backend.is_stale()
    backend.build_page()
    assert len(backend.runs) == 2
    (backend.WEB / "src" / "main.ts").write_text("two")
    backend.build_page()
    assert (backend.OUT / "index.html").read_text() == "two"
    assert [path.name for path in backend.OUT.parent.iterdir()] == ["static"]


def test_what_is_installed_for_development_is_no_source(backend):
    backend.build_page()
    (backend.WEB / "node_modules" / "preact").mkdir(parents=True)
    (backend.WEB / "node_modules" / "preact" / "index.js").write_text("")
    assert not backend.is_stale()


def test_node_is_required_only_while_the_page_is_out_of_date(backend):
    asked = (
        backend.get_requires_for_build_wheel,
        backend.get_requires_for_build_editable,
        backend.get_requires_for_build_sdist,
    )
    assert [backend.NODE in each() for each in asked] == [True] * 3
    backend.build_page()
    assert [backend.NODE in each() for each in asked] == [False] * 3


def test_an_sdist_without_sources_of_the_page_is_not_out_of_date(backend):
    backend.WEB.rename(backend.WEB.with_name("elsewhere"))
    assert not backend.is_wanted()


def test_without_the_registry_the_build_goes_on_and_says_why(backend, monkeypatch, capsys):
    fail(backend, monkeypatch)
    backend.build_page()
    assert "going on without the page: npm-cli.js ci failed" in capsys.readouterr().err
    reason, digest = (backend.OUT / "missing.txt").read_text().splitlines()
    assert reason == "npm-cli.js ci failed: the registry is out of reach"
    assert digest == backend.digest_of_sources()
    # An installation does not try the same again and again; `make page` does.
    monkeypatch.setattr(backend, "build_page", lambda: backend.runs.append("again"))
    assert backend.main() == 0
    assert backend.runs == []
    assert backend.main(["--again"]) == 0
    assert backend.runs == ["again"]


def test_a_page_that_was_built_before_stays_when_a_build_fails(backend, monkeypatch):
    backend.build_page()
    (backend.WEB / "src" / "main.ts").write_text("two")
    fail(backend, monkeypatch)
    backend.build_page()
    assert (backend.OUT / "index.html").read_text() == "one"


def test_a_release_demands_it(backend, monkeypatch):
    monkeypatch.setenv("PUBSUBFLOW_PAGE", "require")
    fail(backend, monkeypatch)
    with pytest.raises(SystemExit, match="cannot be built: npm-cli"):
        backend.build_page()


def test_it_can_be_left_out(backend, monkeypatch):
    monkeypatch.setenv("PUBSUBFLOW_PAGE", "skip")
    assert backend.NODE not in backend.get_requires_for_build_wheel()
    backend.build_page()
    assert backend.runs == []
    monkeypatch.setenv("PUBSUBFLOW_PAGE", "often")
    with pytest.raises(SystemExit, match="set it to auto, require, skip"):
        backend.is_wanted()


def test_where_node_has_no_wheel_the_installation_goes_on(backend, monkeypatch):
    monkeypatch.setattr(backend.platform, "machine", lambda: "riscv64")
    assert backend.NODE not in backend.get_requires_for_build_wheel()


def test_without_node_pip_builds_it(backend, monkeypatch):
    def no_node():
        raise backend.PageError("it needs Node.js")

    monkeypatch.setattr(backend, "_node", no_node)
    called = []

    class Done:
        returncode = 0

    monkeypatch.setattr(
        backend.subprocess, "run", lambda command, **_: called.append(command) or Done()
    )
    assert backend.main() == 0
    assert called[0][:3] == (sys.executable, "-m", "pip")
    assert called[0][-2:] == ("-e", str(ROOT))
