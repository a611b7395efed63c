import sys
import traceback
from pathlib import Path

import pytest

from pubsubflow.authoring.dag_files import import_dag_file, make_bundle

HEAD = "from pubsubflow import DAG, task\n"


@pytest.fixture(autouse=True)
def clean_imports():
    modules, path, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:], sys.meta_path[:] = path, finders


def bundle(root, files, file="flow.py"):
    return make_bundle(str(root), file, files)


def test_the_hash_is_over_paths_and_contents():
    one = bundle("/r", {"flow.py": "a", "b.py": "c"})
    assert one.hash == bundle("/elsewhere", {"b.py": "c", "flow.py": "a"}).hash
    assert one.hash != bundle("/r", {"flow.py": "ab", "b.py": "c"}).hash
    assert one.hash != bundle("/r", {"flow.py": "a", "b.pyc": ""}).hash
    assert len(one.hash) == 64


def test_a_bundle_runs_where_its_folder_does_not_exist(tmp_path):
    files = {
        "flow.py": HEAD + "import helper, pkg.deep, space.inner\n"
        "with DAG(helper.NAME + pkg.deep.NAME + space.inner.NAME): pass\n",
        "helper.py": "NAME = 'a'",
        "pkg/__init__.py": "",
        "pkg/deep.py": "from . import other\nNAME = other.NAME",
        "pkg/other.py": "NAME = 'b'",
        "space/inner.py": "NAME = 'c'",
    }
    assert list(import_dag_file(bundle(tmp_path / "gone", files))) == ["abc"]


def test_the_bundle_wins_over_what_the_folder_holds_now(tmp_path):
    (tmp_path / "flow.py").write_text("raise RuntimeError")
    (tmp_path / "helper.py").write_text("NAME = 'new'")
    (tmp_path / "data.txt").write_text("beside")
    files = {
        "flow.py": HEAD + "import helper\nfrom pathlib import Path\n"
        "DAG(helper.NAME + '-' + Path(__file__).with_name('data.txt').read_text())\n",
        "helper.py": "NAME = 'old'",
    }
    assert list(import_dag_file(bundle(tmp_path, files))) == ["old-beside"]


def test_two_versions_of_a_helper_do_not_mix():
    def files(name):
        return {
            "flow.py": HEAD + "import helper\nwith DAG('d'):\n"
            "    @task\n    def name(): return helper.NAME\n    name()\n",
            "helper.py": f"NAME = {name!r}",
        }

    names = []
    for name in ("one", "two", "one"):
        dag = import_dag_file(bundle("/nowhere", files(name)))["d"]
        names.append(dag.nodes["name"].body.signature.function)
    assert [function() for function in names] == ["one", "two", "one"]


def test_modules_outside_the_bundle_come_from_the_folder(tmp_path):
    (tmp_path / "late_helper.py").write_text("NAME = 'late'")
    text = HEAD + "def late():\n    import late_helper\n    return late_helper.NAME\nDAG(late())\n"
    assert list(import_dag_file(bundle(tmp_path, {"flow.py": text}))) == ["late"]


def test_tracebacks_show_the_lines_that_ran(tmp_path):
    (tmp_path / "flow.py").write_text("# changed since\n" * 5)
    files = {"flow.py": "import helper\nhelper.fail()\n", "helper.py": "def fail():\n    1 / 0\n"}
    with pytest.raises(ZeroDivisionError) as caught:
        import_dag_file(bundle(tmp_path, files))
    text = "".join(traceback.format_exception(caught.value))
    assert f'File "{Path(tmp_path, "flow.py")}", line 2' in text
    assert "helper.fail()" in text
    assert "1 / 0" in text


def test_classes_of_a_dag_file_can_be_found_by_their_module():
    text = HEAD + "import dataclasses\n@dataclasses.dataclass\nclass Row:\n    x: 'int'\nDAG('d')\n"
    assert list(import_dag_file(bundle("/nowhere", {"a/flow.py": text}, "a/flow.py"))) == ["d"]
