"""What user code can do to its import, and what users then see."""

import pytest

from pubsubflow.errors import ConfigError
from pubsubflow.loader import LoaderSettings, load_once
from pubsubflow.model.spec import DatasetSpec

pytestmark = pytest.mark.anyio


@pytest.fixture
def load(folder, fork_server):
    async def load(**settings):
        loaded = await load_once(
            folder.root, fork_server=fork_server, settings=LoaderSettings(**settings)
        )
        return {file.file: file for file in loaded}

    return load


async def test_a_file_gives_its_dags_and_datasets(folder, load):
    text = """
        import helper
        from pubsubflow import Dataset, dag, task

        orders = Dataset("s3://lake/orders", name="orders")
        again = Dataset("s3://lake/orders", group="raw")

        for number in range(3):
            @dag(dag_id=f"d{number}", schedule=orders)
            def flow():
                @task
                def step(): ...
                step()
    """
    folder.write("sub/flow.py", text)
    folder.write("helper.py", "import lib.deep\n")
    folder.write("lib/deep.py", "import json\n")
    loaded = (await load())["sub/flow.py"]
    assert (loaded.error, loaded.traceback) == (None, None)
    assert [dag.dag_id for dag in loaded.dags] == ["d0", "d1", "d2"]
    assert {dag.file for dag in loaded.dags} == {"sub/flow.py"}
    assert {dag.source for dag in loaded.dags} == {loaded.source}
    assert loaded.datasets == (DatasetSpec("s3://lake/orders", "orders", "raw"),)
    assert 0 < loaded.seconds < 10


CRASHES = {
    "x = (\n": ("flow.py:1: SyntaxError: '(' was never closed", "x = ("),
    "\n1 / 0\n": ("flow.py:2: ZeroDivisionError: division by zero", "1 / 0"),
    "import nothing_here\n": ("flow.py:1: ModuleNotFoundError: No module named", "nothing_here"),
    "import sys\nsys.exit(3)\n": ("flow.py:2: the file called sys.exit(3)", "sys.exit(3)"),
    "import os\nos._exit(4)\n": ("flow.py: the import's process ended with exit code 4", None),
    "import ctypes\nctypes.string_at(0)\n": (
        "flow.py: the import's process ended with SIGSEGV",
        None,
    ),
    "from pubsubflow import DAG\n\nDAG('a b')\n": ("flow.py:3: dag_id 'a b' may hold", "DAG("),
    "def f():\n    f()\nf()\n": ("flow.py:2: RecursionError", "f()"),
    "raise ValueError('one\\ntwo')\n": ("flow.py:1: ValueError: one", "two"),
    "raise KeyboardInterrupt\n": ("flow.py:1: KeyboardInterrupt", "KeyboardInterrupt"),
    "# coding: nonsense\n": ("flow.py: SyntaxError: unknown encoding", "unknown"),
}


@pytest.mark.parametrize("text", CRASHES)
async def test_a_crash_is_an_error_of_that_file_alone(folder, load, text):
    folder.write("flow.py", text)
    folder.dag("good.py", "good")
    files = await load()
    message, trace = CRASHES[text]
    bad = files["flow.py"]
    assert message in bad.error
    assert str(folder.root) in bad.error
    assert "\n" not in bad.error
    assert (trace is None and bad.traceback is None) or trace in bad.traceback
    assert "pubsubflow/authoring" not in (bad.traceback or "")
    assert "pubsubflow/loader" not in (bad.traceback or "")
    assert bad.dags == ()
    assert [dag.dag_id for dag in files["good.py"].dags] == ["good"]


async def test_a_hanging_import_is_stopped_and_shows_where(folder, load):
    folder.write("flow.py", "import time\ndef wait():\n    time.sleep(1000)\nwait()\n")
    loaded = (await load(import_seconds=3))["flow.py"]
    assert loaded.error.endswith("flow.py:3: the import took longer than 3 s")
    assert "time.sleep(1000)" in loaded.traceback


async def test_a_loop_that_cannot_be_interrupted_is_killed(folder, load):
    text = """
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    """
    folder.write("flow.py", text)
    loaded = (await load(import_seconds=0.5))["flow.py"]
    assert loaded.error == f"{folder.root}/flow.py: the import took longer than 0.5 s"


async def test_output_and_threads_do_no_harm(folder, load):
    text = """
        import os, sys, threading, time
        from pubsubflow import DAG

        print("garbage" * 10_000)
        os.write(1, b"\\x00\\xff" * 10_000)
        os.write(2, b"\\x00\\xff" * 10_000)
        os.close(0)
        threading.Thread(target=time.sleep, args=(1000,)).start()
        DAG("d")
    """
    folder.write("flow.py", text)
    loaded = (await load())["flow.py"]
    assert [dag.dag_id for dag in loaded.dags] == ["d"]


async def test_five_thousand_dags_from_one_file(folder, load):
    text = """
        from pubsubflow import DAG, EmptyOperator
        for number in range(5000):
            with DAG(f"d{number}"):
                EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")
    """
    folder.write("flow.py", text)
    loaded = (await load())["flow.py"]
    assert len({dag.dag_id for dag in loaded.dags}) == 5000


async def test_files_that_are_no_dag_files_are_left_out(folder, load):
    for file in (
        "good.py",
        "_private.py",
        ".hidden.py",
        "_lib/x.py",
        ".git/x.py",
        "__pycache__/x.py",
        "venv/lib/x.py",
        "skip/x.py",
        "deep/skipped.py",
        "old_1.py",
        "notes.txt",
    ):
        folder.dag(file, "d")
    folder.write("venv/pyvenv.cfg", "")
    folder.write(".pubsubflowignore", "# what to skip\n\nskip/\nskipped.py\nold_*\n")
    assert list(await load()) == ["good.py"]


async def test_of_two_files_with_one_dag_id_the_first_keeps_it(folder, load):
    folder.dag("b.py", "same")
    folder.dag("a.py", "same")
    folder.dag("c.py", "other")
    files = await load()
    assert [dag.dag_id for dag in files["a.py"].dags] == ["same"]
    assert files["b.py"].dags == ()
    assert files["b.py"].error == (
        "b.py: DAG 'same' is defined by a.py too; give one of them another dag_id"
    )
    assert files["c.py"].error is None


async def test_a_dag_belongs_to_the_file_that_makes_it_not_to_those_that_import_it(folder, load):
    folder.dag("b.py", "b")
    folder.dag("a.py", "a", "import b")
    folder.write("_factory.py", "from pubsubflow import DAG\ndef make(name):\n    DAG(name)\n")
    folder.write("c.py", "import _factory\n_factory.make('c')\n")
    files = await load()
    dags = {name: [dag.dag_id for dag in file.dags] for name, file in files.items()}
    assert dags == {"a.py": ["a"], "b.py": ["b"], "c.py": ["c"]}


async def test_a_mistake_in_a_helper_is_reported_with_its_location(folder, load):
    folder.write("_factory.py", "from pubsubflow import DAG\ndef make():\n    DAG('d', x=1)\n")
    folder.write("c.py", "import _factory\n_factory.make()\n")
    loaded = (await load())["c.py"]
    assert f"{folder.root}/_factory.py:3: DAG 'd': it has no keyword 'x'" in loaded.error
    assert "c.py" in loaded.traceback


async def test_a_single_file_can_be_loaded(folder, fork_server):
    folder.dag("other.py", "other")
    path = folder.dag("flow.py", "d", "import other")
    loaded = await load_once(path, fork_server=fork_server)
    assert [(file.file, [dag.dag_id for dag in file.dags]) for file in loaded] == [
        ("flow.py", ["other", "d"])
    ]


async def test_a_missing_folder_is_a_configuration_error(folder, fork_server):
    with pytest.raises(ConfigError, match="does not exist"):
        await load_once(folder.root / "nothing", fork_server=fork_server)


LEAVINGS = {
    "a_environment": "import os\nos.environ['LEFT'] = 'environment'",
    "b_path": "import sys\nsys.path.insert(0, '/left')",
    "c_patched": "import pubsubflow\npubsubflow.EmptyOperator.pool = 'left'",
    "d_built_in": "import builtins\nbuiltins.left = 'built-in'",
    "e_invented": "import sys, types\nsys.modules['left'] = types.ModuleType('left')",
    "f_helper": "import helper\nhelper.seen.append('f')",
    "g_handler": "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    "h_replaced": "import json, sys, types\nsys.modules['json'] = types.SimpleNamespace(left=1)",
}
SEES = """
import builtins, json, os, signal, sys
import helper
from pubsubflow import DAG, EmptyOperator

seen = [
    "LEFT" in os.environ,
    "/left" in sys.path,
    getattr(EmptyOperator, "pool", None) == "left",
    hasattr(builtins, "left"),
    "left" in sys.modules,
    bool(helper.seen),
    signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL,
    hasattr(json, "left"),
]
DAG("sees" + "".join(str(number) for number, each in enumerate(seen) if each))
"""


async def test_a_file_does_not_see_what_others_have_left(folder, load):
    folder.write("helper.py", "seen = []\n")
    for name, text in LEAVINGS.items():
        folder.write(f"{name}.py", text)
    folder.write("z.py", SEES)
    loaded = await load(processes=1)
    assert [dag.dag_id for dag in loaded["z.py"].dags] == ["sees"]
    assert not [each.error for each in loaded.values() if each.error]


async def test_files_share_a_process_and_none_is_blamed_for_another(
    folder, fork_server, load, monkeypatch
):
    forked = []
    fork = fork_server.fork

    async def counted(*arguments, **options):
        forked.append(arguments)
        return await fork(*arguments, **options)

    monkeypatch.setattr(fork_server, "fork", counted)
    for number in range(20):
        folder.dag(f"a{number}.py", f"a{number}", "import helper, tomllib")
    folder.write("helper.py", "from pubsubflow import Dataset\n")
    assert len(await load(processes=1)) == 21
    assert len(forked) == 1
    # What is left in a library shows when the next file fails: it is imported once more, alone.
    folder.dag("b1.py", "b1", "import decimal", "decimal.Decimal = None")
    folder.dag("b2.py", "b2", "import decimal", "decimal.Decimal(1)")
    folder.write("b3.py", "import os\nos._exit(4)\n")
    folder.dag("b4.py", "b4")
    loaded = await load(processes=1)
    assert {file for file, each in loaded.items() if each.error} == {"b3.py"}
    assert loaded["b3.py"].error.endswith("b3.py: the import's process ended with exit code 4")
    assert [dag.dag_id for dag in loaded["b2.py"].dags] == ["b2"]
    assert len(forked) <= 1 + 5


async def test_an_import_loads_nothing_that_it_does_not_use(folder, load):
    text = """
        import sys
        from pubsubflow import DAG

        DAG("d", tags=[each for each in ("aiohttp.client", "cel.cli") if each in sys.modules])
    """
    folder.dag("a.py", "a")
    folder.write("b.py", text)
    loaded = await load(processes=1)
    assert loaded["b.py"].dags[0].tags == ()
