"""All that is only read, for the API: one part a subject."""

from pubsubflow.model.api.server import WorkerView
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.changes import ReadNews
from pubsubflow.store.read.dags import ReadDags
from pubsubflow.store.read.datasets import ReadDatasets
from pubsubflow.store.read.dead_letters import ReadLetters
from pubsubflow.store.read.pools import ReadPools
from pubsubflow.store.read.runs import ReadRuns
from pubsubflow.store.read.tasks import ReadTasks
from pubsubflow.store.read.triggers import ReadTriggers
from pubsubflow.store.read.why_not import ReadWaiting
from pubsubflow.store.specs import Specs
from pubsubflow.store.webhooks import ReadHooks


class Reading:
    """Read-only queries; every list has a limit and stands on an index.

    Attributes:
        dags: About DAGs and their files.
        runs: About runs, and why they exist.
        tasks: About task instances and their output.
        datasets: About datasets and events.
        waiting: About what DAGs still wait for.
        letters: About what could not be done.
        hooks: Webhooks.
        triggers: About what is waited for.
        news: What happened.
        pools: About pools.
    """

    def __init__(self, database: Database) -> None:
        specs = Specs()
        self._database = database
        self.dags = ReadDags(database, specs)
        self.runs = ReadRuns(database, specs)
        self.tasks = ReadTasks(database, specs)
        self.datasets = ReadDatasets(database, specs)
        self.waiting = ReadWaiting(database, specs)
        self.letters = ReadLetters(database)
        self.hooks = ReadHooks(database)
        self.triggers = ReadTriggers(database, specs)
        self.news = ReadNews(database)
        self.pools = ReadPools(database)

    async def workers(self) -> list[WorkerView]:
        """Return the workers that have not said farewell."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["read_workers"])
        return [WorkerView(**dict(row)) for row in rows]

    async def ping(self) -> None:
        """Return if Postgres answers.

        Raises:
            StoreUnavailable: It does not.
        """
        async with self._database.connection() as connection:
            await connection.fetchval(SQL["ping"])
