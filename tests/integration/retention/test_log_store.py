"""Output of ended attempts moves to the log store, is read from there, and goes with its run."""

import gzip
from uuid import uuid4

import msgspec
import pytest

from pubsubflow import plugins
from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.model.spec import RetentionSpec
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.object_store import FileStore, ObjectStoreUnavailable, open_log_store
from pubsubflow.retention import LogMover, Pruner, RetentionSettings, summed
from pubsubflow.store.objects.output import OutputPosition
from pubsubflow.store.read.read_models import ReadModels
from support.specs import dag, task

pytestmark = pytest.mark.anyio
FROM_START = OutputPosition(0)


class Away(FileStore):
    """A store that is out of reach while `away` is set."""

    away = False

    async def _call(self, function, *arguments):
        if self.away:
            raise ObjectStoreUnavailable("the bucket is away")
        return await super()._call(function, *arguments)


class Logs:
    """A log store with all that uses it."""

    def __init__(self, kept, folder):
        self.kept, self.folder = kept, folder
        self.harness = kept.harness
        self.store = Away(f"file://{folder}", setting="logs.store")
        self.mover = LogMover(self.harness.database, self.store, 5.0)
        self.tasks = ReadModels(self.harness.database, self.store).tasks

    async def move(self) -> int:
        """Let what has ended be seen, then move it."""
        return await self.mover.move() + await self.mover.move()

    async def has_chunks(self, count: int) -> None:
        """Wait until Postgres has so many chunks."""
        query = "SELECT count(*) FROM log HAVING count(*) = $1"
        await self.harness.until_value(query, count)

    async def read(self, task_id: str, after=FROM_START, limit=32) -> list[str]:
        task = await self.tasks.find_by_id(task_id)
        lines = []
        while chunks := await self.tasks.log(task, after, limit=limit):
            after = chunks[-1].position
            for chunk in chunks:
                lines += [msgspec.json.decode(line)["m"] for line in chunk.text.splitlines()]
        return lines

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        )

    def pruner(self, **settings) -> Pruner:
        settings = RetentionSettings(**settings)
        return Pruner(self.harness.database, settings, log_store=self.store)


@pytest.fixture
async def logs(kept, tmp_path):
    await kept.harness.load(dag("d", task("a.b"), task("c", "a.b", kind="sync")))
    return Logs(kept, tmp_path / "logs")


async def test_output_moves_when_its_attempt_has_ended_and_reads_the_same(logs):
    harness = logs.harness
    harness.automatic = None
    run_id = str(await harness.call(StartRun("d")))
    await harness.write(run_id, 0, 0, "one", "two")
    await harness.write(run_id, 0, 1, "three")
    await logs.has_chunks(2)
    assert await logs.move() == 0, "it runs"
    await harness.finish("a.b")
    assert await logs.mover.move() == 0, "seen once"
    assert await logs.mover.move() == 1
    assert logs.files() == [f"d/{run_id}/a.b/1.1.0-1.jsonl.gz"]
    assert await logs.kept.counts("log", "log_object") == [0, 1]
    name = f"{run_id}.a.b"
    assert await logs.read(name) == ["one", "two", "three"]
    # A client that has seen the first chunk goes on within the file.
    assert await logs.read(name, OutputPosition(1, 1, 0)) == ["three"]
    # Late output gets a file of its own; until then both are read as one.
    await harness.write(run_id, 0, 2, "late")
    await logs.has_chunks(1)
    assert await logs.read(name) == ["one", "two", "three", "late"]
    assert await logs.move() == 1
    assert await logs.read(name, limit=1) == ["one", "two", "three", "late"]
    data = (logs.folder / f"d/{run_id}/a.b/1.1.2-2.jsonl.gz").read_bytes()
    assert msgspec.json.decode(gzip.decompress(data))["m"] == "late"


async def test_a_store_that_is_away_leaves_output_where_it_is(logs):
    harness = logs.harness
    run_id = await logs.kept.run("d")
    await harness.write(run_id, 0, 0, "hello")
    await logs.has_chunks(1)
    logs.store.away = True
    with pytest.raises(ObjectStoreUnavailable, match="away"):
        await logs.move()
    assert await logs.read(f"{run_id}.a.b") == ["hello"]
    logs.store.away = False
    assert await logs.move() == 1
    logs.store.away = True
    with pytest.raises(ObjectStoreUnavailable, match="away"):
        await logs.read(f"{run_id}.a.b")
    # Nothing is forgotten that could not be deleted.
    await logs.kept.age(6)
    await logs.pruner().prune()
    await logs.kept.age(40)
    await logs.pruner().prune()
    assert await logs.kept.counts("log_object") == [1]
    logs.store.away = False
    await logs.pruner().prune()
    assert await logs.kept.counts("log_object", "run") == [0, 0]
    assert list(logs.folder.rglob("*")) == [], "no empty folder is left"


async def test_files_go_by_the_retention_of_logs_and_are_listed_before(logs):
    harness = logs.harness
    await harness.load(dag("own", task("t"), retention=RetentionSpec(runs_count=1)))
    kept = await logs.kept.run("d")
    for run_id in (kept, first := await logs.kept.run("own"), await logs.kept.run("own")):
        await harness.write(run_id, 0, 0, "hello")
    await logs.has_chunks(3)
    assert await logs.move() == 3
    await logs.kept.age(6)
    await logs.pruner().prune()
    assert not any(first in name for name in logs.files()), "the first of its DAG"
    assert len(logs.files()) == 2
    await logs.kept.age(16)
    due = {each.table: each for each in summed(await logs.pruner().prune(dry_run=True))}
    assert due["log store, files"].rows == 2
    assert due["log store, files"].bytes > 0
    await logs.pruner().prune()
    assert logs.files() == []
    assert await logs.kept.counts("run", "log_object") == [2, 0]


async def test_what_moves_at_the_moment_of_a_crash_is_moved_again(logs, monkeypatch):
    harness = logs.harness
    run_id = await logs.kept.run("d")
    await harness.write(run_id, 0, 0, "hello")
    await logs.has_chunks(1)

    async def die(*_):
        raise StoreUnavailable("it dies here")

    with monkeypatch.context() as context:
        context.setattr("pubsubflow.store.objects.log_files.record_move", die)
        with pytest.raises(StoreUnavailable):
            await logs.move()
    assert await logs.read(f"{run_id}.a.b") == ["hello"]
    assert await logs.move() == 1
    assert len(logs.files()) == 1
    assert await logs.read(f"{run_id}.a.b") == ["hello"]


class MemoryLogs:
    """A log store of a plugin."""

    def __init__(self, url):
        self.url = url

    async def write(self, name, data): ...

    async def read(self, name): ...

    async def delete(self, names): ...


async def test_a_plugin_serves_its_scheme(monkeypatch):
    class Point:
        value = "psf_vault:open"

        def __init__(self, made):
            self.load = lambda: made

    def points(made):
        return lambda kind: {"vault": Point(made)} if kind == "log-store" else {}

    monkeypatch.setattr(plugins, "_points", points(MemoryLogs))
    assert open_log_store("vault://team/logs").url == "vault://team/logs"
    assert isinstance(open_log_store(f"memory://{uuid4()}"), FileStore)
    monkeypatch.setattr(plugins, "_points", points(lambda _: object()))
    with pytest.raises(ConfigError, match="plugin does not return a pubsubflow LogStore"):
        open_log_store("vault://team/logs")
    with pytest.raises(ConfigError, match="nonsense"):
        open_log_store("nonsense://team/logs")
