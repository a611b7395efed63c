"""Read models of the API, one for each subject."""

from pubsubflow.object_store import FileStore, LogStore
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.objects.answers import ReadAnswers
from pubsubflow.store.objects.results import ReadResults
from pubsubflow.store.read.changes import ReadChanges
from pubsubflow.store.read.checks.checks import ReadChecks
from pubsubflow.store.read.dags import ReadDags
from pubsubflow.store.read.datasets import ReadDatasets
from pubsubflow.store.read.dead_letters import ReadDeadLetters
from pubsubflow.store.read.history.causality import ReadCausality
from pubsubflow.store.read.history.timeline import ReadTimelines
from pubsubflow.store.read.overview.grid import ReadGrids
from pubsubflow.store.read.overview.neighbours import ReadNeighbours
from pubsubflow.store.read.overview.schedule import ReadSchedules
from pubsubflow.store.read.overview.summary import ReadSummary
from pubsubflow.store.read.overview.system import ReadSystem
from pubsubflow.store.read.pools import ReadPools
from pubsubflow.store.read.runs.backfills import ReadBackfills
from pubsubflow.store.read.runs.runs import ReadRuns
from pubsubflow.store.read.runs.versions import ReadVersions
from pubsubflow.store.read.tasks import ReadTasks
from pubsubflow.store.read.triggers import ReadTriggers
from pubsubflow.store.read.webhooks import ReadWebhooks
from pubsubflow.store.read.why_not import ReadWhyNot
from pubsubflow.store.read.workers import ReadWorkers
from pubsubflow.store.specs import SpecReader


class ReadModels:
    """All read models; every list has a limit and is served by an index.

    Args:
        database: Postgres.
        log_store: Where output of ended attempts is, if not in Postgres.
        result_store: Where large results are, if anywhere.

    Attributes:
        dags: About DAGs and their files.
        versions: About versions of DAGs.
        runs: About runs, and the events that caused them.
        causality: About what led to what.
        timelines: About the time that runs took.
        backfills: About backfills.
        tasks: About task instances and their output.
        answers: About results of called DAGs.
        datasets: About datasets and events.
        why_not: About why schedules have not fired.
        checks: About checks, and the events that they hold.
        dead_letters: About dead letters.
        webhooks: About webhooks.
        triggers: About waits and watched datasets.
        changes: The change log.
        pools: About pools.
        workers: About workers.
        summary: About what happens now.
        grids: About the tasks of many runs of one DAG.
        schedules: About the ticks of DAGs.
        neighbours: About what leads to datasets and what follows.
        system: About sizes, and who does what.
    """

    def __init__(
        self,
        database: Database,
        log_store: LogStore | None = None,
        result_store: FileStore | None = None,
    ) -> None:
        specs = SpecReader()
        self._database = database
        self.dags = ReadDags(database, specs)
        self.versions = ReadVersions(database, specs)
        self.runs = ReadRuns(database, specs)
        self.causality = ReadCausality(database, specs)
        self.timelines = ReadTimelines(database, specs)
        self.backfills = ReadBackfills(database)
        results = ReadResults(result_store)
        self.tasks = ReadTasks(database, specs, log_store, results)
        self.answers = ReadAnswers(database, specs, results)
        self.datasets = ReadDatasets(database, specs)
        self.why_not = ReadWhyNot(database, specs)
        self.checks = ReadChecks(database, specs)
        self.dead_letters = ReadDeadLetters(database)
        self.webhooks = ReadWebhooks(database)
        self.triggers = ReadTriggers(database, specs)
        self.changes = ReadChanges(database)
        self.pools = ReadPools(database, specs)
        self.workers = ReadWorkers(database)
        self.summary = ReadSummary(database, specs)
        self.grids = ReadGrids(database, specs)
        self.schedules = ReadSchedules(database, specs)
        self.neighbours = ReadNeighbours(database)
        self.system = ReadSystem(database)

    async def late_timers_seconds(self) -> float:
        """Return by how much the first timer is late; 0 if none is due.

        Raises:
            StoreUnavailable: Postgres does not answer.
        """
        async with self._database.connection() as connection:
            seconds: float = await connection.fetchval(SQL["read_late_timers_seconds"])
        return max(0.0, seconds)
