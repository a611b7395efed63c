import json
import subprocess
import sys
import traceback

import pytest

from support.bundles import MadeBundle, entered, execute

HEAD = "from pubsubflow import DAG, task\n"


def test_a_file_finds_what_lies_beside_it(tmp_path):
    files = {
        "sub/flow.py": HEAD
        + "import json\nfrom pathlib import Path\nimport helper, pkg.deep, space.inner\n"
        "here = Path(__file__).parent\n"
        "DAG(helper.NAME + pkg.deep.NAME + space.inner.NAME + (here / 'data.txt').read_text())\n",
        "sub/data.txt": "d",
        "helper.py": "NAME = 'a'",
        "pkg/__init__.py": "",
        "pkg/deep.py": "from . import other\nNAME = other.NAME",
        "pkg/other.py": "NAME = 'b'",
        "space/inner.py": "NAME = 'c'",
    }
    assert list(execute(tmp_path, files, "sub/flow.py").dags) == ["abcd"]


def test_tracebacks_show_the_folder_of_the_user_and_the_lines_that_ran(tmp_path):
    root = tmp_path / "dags"
    root.mkdir()
    (root / "flow.py").write_text("# changed since\n" * 5)
    files = {"flow.py": "import helper\nhelper.fail()\n", "helper.py": "def fail():\n    1 / 0\n"}
    with pytest.raises(ZeroDivisionError) as caught:
        execute(tmp_path / "cache", files, root=root)
    text = "".join(traceback.format_exception(caught.value))
    assert f'File "{root}/flow.py", line 2' in text
    assert f'File "{root}/helper.py", line 2' in text
    assert "helper.fail()" in text
    assert "1 / 0" in text
    assert str(tmp_path / "cache") not in text


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + HEAD.encode() + b"DAG('d')\r\n",
        HEAD.replace("\n", "\r\n").encode() + b"DAG('d')\r\n",
        b"# coding: latin-1\n" + HEAD.encode() + "DAG('d', description='é')\n".encode("latin-1"),
    ],
    ids=["byte order mark", "CRLF", "an encoding of its own"],
)
def test_files_are_decoded_as_python_does(tmp_path, data):
    assert list(execute(tmp_path, {"flow.py": data}).dags) == ["d"]


def test_a_path_into_the_folder_of_the_user_means_what_the_bundle_holds(tmp_path):
    root = tmp_path / "dags"
    files = {
        "flow.py": HEAD + f"import sys\nsys.path.insert(0, {str(root / 'lib')!r})\nimport names\n"
        "DAG(names.NAME)\n",
        "lib/names.py": "NAME = 'of-the-bundle'",
    }
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "names.py").write_text("NAME = 'of-now'")
    assert list(execute(tmp_path / "cache", files, root=root).dags) == ["of-the-bundle"]


def test_classes_of_a_dag_file_can_be_found_by_their_module(tmp_path):
    text = HEAD + "import dataclasses\n@dataclasses.dataclass\nclass Row:\n    x: 'int'\nDAG('d')\n"
    assert list(execute(tmp_path, {"a/flow.py": text}, "a/flow.py").dags) == ["d"]


def test_a_process_runs_the_code_of_one_bundle(tmp_path):
    code = (
        "import json, sys\n"
        "from pubsubflow.authoring.dag_files import BundleFolder, users_text\n"
        "one, other = sys.argv[1:]\n"
        "dags = sorted(BundleFolder.enter(one, '/dags').dags('flow.py'))\n"
        "again = BundleFolder.enter(one, '/dags') is BundleFolder.enter(one, '/dags')\n"
        "try:\n    BundleFolder.enter(other, '/dags')\n"
        "except RuntimeError as error:\n    text = str(error)\n"
        "print(json.dumps([dags, again, text, users_text('at ' + one + '/x')]))"
    )
    one, other = tmp_path / "one", tmp_path / "other"
    MadeBundle({"flow.py": HEAD + "import late\nDAG(late.NAME)\n", "late.py": "NAME = 'd'"}).write(
        one
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(one), str(other)], capture_output=True, check=True
    )
    refusal = f"this process runs the code of {one}, not of {other}"
    assert json.loads(done.stdout) == [["d"], True, refusal, "at /dags/x"]


def test_modules_are_found_lazily_too(tmp_path):
    files = {
        "flow.py": HEAD + "def late():\n    import late_helper\n    return late_helper.NAME\n"
        "DAG('d')\nLATE = late\n",
        "late_helper.py": "NAME = 'late'",
    }
    MadeBundle(files).write(tmp_path)
    with entered(tmp_path) as bundle:
        bundle.execute("flow.py")
        module = next(
            module for name, module in sys.modules.items() if name.startswith("pubsubflow_dag_")
        )
        assert module.LATE() == "late"
