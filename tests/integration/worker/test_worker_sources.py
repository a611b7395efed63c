"""The code of runs on a worker: files beside it, graphs that differ, folders that must not mix."""

from textwrap import dedent

import pytest

from pubsubflow.model.wire.messages import Outcome
from support.bundles import MadeBundle

pytestmark = pytest.mark.anyio

READS = """
    from pathlib import Path
    from pubsubflow import dag, task

    HERE = Path(__file__).parent

    @dag
    def reads():
        @task
        def lazily():
            import helper
            return helper.NAME

        @task
        async def lazily_too():
            from package import deep
            return deep.NAME

        @task
        def data():
            return (HERE / "sub" / "data.yaml").read_text()

        @task
        def absent():
            return (HERE / "nothing.yaml").read_text()

        lazily(), lazily_too(), data(), absent()
"""
BESIDE = {
    "helper.py": "NAME = 'helper'",
    "package/__init__.py": "",
    "package/deep.py": "NAME = 'deep'",
    "sub/data.yaml": "key: value",
}


async def test_files_that_no_import_read_are_there(manager, worker):
    dag = manager.load(dedent(READS), helpers=BESIDE)
    for name, value in (("lazily", "helper"), ("lazily_too", "deep"), ("data", "key: value")):
        result = await manager.run(dag, name)
        assert (result.outcome, manager.decoded(result)) == (Outcome.SUCCESS, value)


async def test_errors_show_the_folder_of_the_user(manager, worker):
    dag = manager.load(dedent(READS), helpers=BESIDE, root="/opt/dags")
    result = await manager.run(dag, "absent")
    assert result.error.message.endswith("No such file or directory: '/opt/dags/nothing.yaml'")
    assert 'File "/opt/dags/dags.py", line' in result.error.traceback
    assert "/cache/" not in result.error.traceback


async def test_only_files_that_are_new_are_requested(manager, worker):
    dag = manager.load(dedent(READS), helpers=BESIDE)
    assert (await manager.run(dag, "lazily")).outcome == Outcome.SUCCESS
    seen = len(manager.requests)
    dag = manager.load(dedent(READS), helpers=BESIDE | {"helper.py": "NAME = 'new'"})
    assert manager.decoded(await manager.run(dag, "lazily")) == "new"
    kinds = [type(request).__name__ for request in manager.requests[seen:]]
    assert kinds.count("FileRequest") == 1


async def test_a_worker_that_starts_again_has_its_files(manager, start_worker):
    dag = manager.load(dedent(READS), helpers=BESIDE)
    async with start_worker("w1"):
        assert (await manager.run(dag, "lazily")).outcome == Outcome.SUCCESS
    seen = len(manager.requests)
    async with start_worker("w2"):
        assert (await manager.run(dag, "lazily")).outcome == Outcome.SUCCESS
    kinds = {type(request).__name__ for request in manager.requests[seen:]}
    assert "FileRequest" not in kinds


async def test_a_file_that_a_task_wrote_to_is_mended(manager, start_worker, tmp_path):
    dag = manager.load(dedent(READS), helpers=BESIDE)
    async with start_worker("w1"):
        assert (await manager.run(dag, "lazily")).outcome == Outcome.SUCCESS
    for place in (tmp_path / "cache").rglob("helper.py"):
        place.chmod(0o644)
        place.write_text("NAME = 'written'")
    async with start_worker("w2"):
        assert manager.decoded(await manager.run(dag, "lazily")) == "helper"


def made(*names, more=""):
    """Return a file that makes a task for each name, in this order."""
    return dedent(f"""
        from pubsubflow import Context, dag, task

        @dag
        def made():
            for name in {names!r}:
                @task(task_id=name)
                def sync(ctx: Context, name=name):
                    return [name, ctx.task.task_id]
                sync()
                @task(task_id=f"a{{name}}")
                async def other(ctx: Context, name=name):
                    return [name, ctx.task.task_id]
                other()
            {more}
    """)


async def test_a_task_is_found_by_its_id_whatever_the_order(manager, worker):
    spec = manager.load(made("x", "y", "z")).spec
    dag = manager.add(MadeBundle({"dags.py": made("z", "x", "y")}), spec)
    for name in ("x", "y", "z"):
        assert manager.decoded(await manager.run(dag, name)) == [name, name]
        assert manager.decoded(await manager.run(dag, f"a{name}")) == [name, f"a{name}"]


@pytest.mark.parametrize("name", ["x", "ax"])
async def test_another_graph_is_refused_with_what_differs(manager, worker, name):
    spec = manager.load(made("x", "y")).spec
    dag = manager.add(MadeBundle({"dags.py": made("w", "x")}, root="/opt/dags"), spec)
    result = await manager.run(dag, name)
    assert (result.outcome, result.error.type, result.error.final) == (
        Outcome.FAILED,
        "DefinitionError",
        True,
    )
    assert result.error.message.startswith(
        "/opt/dags/dags.py: DAG 'made': the file now makes aw, ax, w, x; the version of this run "
        "has ax, ay, x, y: aw, w are new, ay, y are missing; no task was run in place of another."
    )


async def test_edges_count_too(manager, worker):
    spec = manager.load(made("x", "y")).spec
    more = "made_ids['x'] >> made_ids['y']"
    text = made("x", "y", more=more).replace("sync()\n", "made_ids[name] = sync()\n")
    dag = manager.add(MadeBundle({"dags.py": f"made_ids = {{}}\n{text}"}), spec)
    result = await manager.run(dag, "x")
    assert "of y, what runs before it differs" in result.error.message


def mapped(*elements):
    return dedent(f"""
        from pubsubflow import dag, task

        @dag
        def made():
            @task
            def show(x, y):
                return [x, y]
            show.expand(x={list(elements)!r}, y=["a", "b"])
    """)


async def test_an_instance_finds_its_element_whatever_the_order(manager, worker):
    spec = manager.load(mapped("x", "y", "z")).spec
    dag = manager.add(MadeBundle({"dags.py": mapped("z", "x", "y")}), spec)
    for index, name in enumerate(("x", "y", "z")):
        result = await manager.run(dag, "show", map_index=index * 2 + 1, indexes=(index, 1))
        assert manager.decoded(result) == [name, "b"]


async def test_other_elements_are_refused(manager, worker):
    spec = manager.load(mapped("x", "y")).spec
    dag = manager.add(MadeBundle({"dags.py": mapped("x", "w")}), spec)
    result = await manager.run(dag, "show", map_index=0, indexes=(0, 0))
    assert "of show, the elements of expand(x=…) differ" in result.error.message


async def test_a_dag_that_is_not_made_any_more_is_refused(manager, worker):
    spec = manager.load(made("x")).spec
    dag = manager.add(MadeBundle({"dags.py": "import pubsubflow"}), spec)
    result = await manager.run(dag, "x")
    assert "does not make this DAG where it is imported now" in result.error.message
    assert result.error.final


HELPS = """
    import os, sys
    sys.path.insert(0, os.path.dirname(__file__))
    import utils
    from pubsubflow import dag, task

    @dag(dag_id={name!r})
    def flow():
        @task
        def plain():
            return utils.WHO
        @task
        async def shared():
            return utils.WHO
        @task
        def inside():
            sys.path.insert(0, os.path.dirname(__file__))
            from settings.values import WHO
            return WHO
        plain(), shared(), inside()
"""


async def test_folders_with_modules_of_the_same_name_do_not_mix(manager, worker):
    files = {}
    for name in ("east", "west"):
        files[f"{name}/flow.py"] = dedent(HELPS.format(name=name))
        files[f"{name}/utils.py"] = files[f"{name}/settings/values.py"] = f"WHO = {name!r}"
    bundle = MadeBundle(files, imported={"os", "utils", "settings"})
    dags = [manager.load_from(bundle, f"{name}/flow.py") for name in ("east", "west")]
    for _ in range(2):
        for task in ("plain", "shared", "inside"):
            results = [await manager.run(dag, task) for dag in dags]
            assert [manager.decoded(result) for result in results] == ["east", "west"]


async def test_a_version_gets_its_turn_while_another_has_work(manager, start_worker):
    """One process serves one version; a stream of tasks of it does not keep others out."""
    busy, other = (manager.load(made(name)) for name in ("busy", "other"))
    async with start_worker(processes=1, prefetch=50):
        assert (await manager.run(busy, "busy")).outcome == Outcome.SUCCESS
        orders = [await manager.send(manager.order(busy, "busy")) for _ in range(40)]
        late = await manager.send(manager.order(other, "other"))
        assert manager.decoded(await manager.result(late)) == ["other", "other"]
        for order in orders:
            assert (await manager.result(order)).outcome == Outcome.SUCCESS
