"""Looks into the past: replays of events, backfills of ticks and partitions."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from pubsubflow.api.auth.middleware import note_object
from pubsubflow.api.http import routing
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.http.requests import NoQuery, body, check_numbers, query, utc
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.errors import DefinitionError
from pubsubflow.model.api.explain import PlannedRuns
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.wire.commands import Backfill, Calls, Planned, Replay
from pubsubflow.store.read.read_models import Reading

Text = Annotated[str, Meta(min_length=1, max_length=512)]
Moment = Annotated[datetime, Meta(tz=True)]


class AskedReplay(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request for a replay.

    Attributes:
        since, until: Bounds of the time at which events were recorded; `to` is exclusive, now if
            left out.
        dataset: Only events of this URI.
        dry_run: Only tell what would start.
        again: Also make runs that exist.
        dags: The DAGs that are to decide once more; all that subscribe to `dataset` if empty.
    """

    since: Moment = field(name="from")
    until: Moment | None = field(name="to", default=None)
    dataset: str | None = None
    dags: tuple[Text, ...] = ()
    dry_run: bool = False
    again: bool = False


class AskedBackfill(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request for a backfill.

    Attributes:
        since, until: Bounds of the ticks; `to` is exclusive, now if left out.
        partitions: Partition keys, in place of ticks.
        params: Values in place of the DAG's defaults.
        dry_run: Only tell what would start.
        again: Also make runs that exist.
    """

    since: Moment | None = field(name="from", default=None)
    until: Moment | None = field(name="to", default=None)
    partitions: tuple[Text, ...] = ()
    params: dict[str, Any] | None = None
    dry_run: bool = False
    again: bool = False


_asked_replay = msgspec.json.Decoder(AskedReplay)
_asked_backfill = msgspec.json.Decoder(AskedBackfill)


class Past:
    """Handlers of `/api/v1/datasets/replay` and `/api/v1/dags/{dag_id}/backfill`."""

    def __init__(self, calls: Calls, reading: Reading) -> None:
        self._calls = calls
        self._reading = reading

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.post(
            "/api/v1/datasets/replay",
            self.replay,
            access=Access.OPERATOR,
            query=NoQuery,
            body=AskedReplay,
            answers={200: list[PlannedRuns]},
            problems=(404,),
        )
        yield routing.post(
            "/api/v1/dags/{dag_id}/backfill",
            self.backfill,
            access=Access.OPERATOR,
            query=NoQuery,
            body=AskedBackfill,
            answers={200: PlannedRuns},
        )

    async def replay(self, request: web.Request) -> web.Response:
        """Let DAGs decide about past events once more; answer with the runs of each."""
        query(request, NoQuery)
        asked = await body(request, _asked_replay)
        since = utc(asked.since, field="from") or asked.since
        _check_order(asked.since, asked.until)
        uri = _uri(asked.dataset)
        note_object(request, ", ".join(filter(None, (uri, *asked.dags))))
        dags = list(asked.dags)
        if not dags:
            if uri is None:
                raise BadRequest("name a dataset, or the DAGs that are to decide", field="dags")
            dags = await self._reading.datasets.consumers(uri)
        for dag_id in dags:
            await self._reading.dags.check(dag_id)
        planned = []
        for dag_id in dict.fromkeys(dags):
            runs: list[Planned] = await self._calls.call(
                Replay(
                    dag_id,
                    since,
                    utc(asked.until, field="to"),
                    uri,
                    asked.dry_run,
                    asked.again,
                )
            )
            planned.append(PlannedRuns(dag_id=dag_id, dry_run=asked.dry_run, runs=runs))
        return answer(planned)

    async def backfill(self, request: web.Request) -> web.Response:
        """Make the runs of past ticks or of partitions; answer with them."""
        query(request, NoQuery)
        dag_id = request.match_info["dag_id"]
        asked = await body(request, _asked_backfill)
        check_numbers([asked.params])
        _check_order(asked.since, asked.until)
        if asked.since is None and not asked.partitions:
            raise BadRequest("say from when on, or which partitions", field="from")
        if asked.partitions and (asked.since or asked.until):
            raise BadRequest("give times or partitions, not both", field="partitions")
        runs: list[Planned] = await self._calls.call(
            Backfill(
                dag_id,
                utc(asked.since, field="from"),
                utc(asked.until, field="to"),
                asked.partitions,
                asked.params,
                asked.dry_run,
                asked.again,
            )
        )
        return answer(PlannedRuns(dag_id=dag_id, dry_run=asked.dry_run, runs=runs))


def _check_order(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and until <= since:
        raise BadRequest(f"the end {until} is not after the beginning {since}", field="to")


def _uri(dataset: str | None) -> str | None:
    try:
        return None if dataset is None else normalise_uri(dataset)
    except DefinitionError as error:
        raise BadRequest(str(error), field="dataset") from error
