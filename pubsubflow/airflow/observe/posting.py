"""The operator that posts events of our datasets as events of assets in a running Airflow."""

from datetime import timedelta
from typing import Any

from pubsubflow.airflow.observe.api import OURS, THEIRS, AirflowApi
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.errors import Fail
from pubsubflow.hooks.connection import read_connection
from pubsubflow.model.connections import Connection

# The clocks of the two may differ by that.
_CLOCKS = timedelta(minutes=5)


class PostAssetEvents(Operator):
    """Posts the events that the run has consumed as events of assets; the result is their number.

    Each is posted once, however often the task runs: its id is in `extra`, and what was begun
    before is looked for. Events that `AirflowAssetEvents` has brought are left out.

    Args:
        asset: URI or name of the asset; that of each event's dataset if left out.
        connection: The API server, a connection of type `http`.
    """

    template_fields = ("asset",)

    def __init__(
        self,
        *,
        asset: str | None = None,
        connection: str | Connection = "airflow",
        **kwargs: Any,
    ) -> None:
        self.asset, self.connection = asset, connection
        super().__init__(**kwargs)

    async def execute(self, ctx: Context) -> int:
        """Post what is not there yet."""
        posted = 0
        for event in ctx.events.all:
            if THEIRS not in event.extra:
                await ctx.step(f"post {event.event_id}", self._post, ctx, event)
                posted += 1
        return posted

    async def _post(self, ctx: Context, event: DatasetEvent) -> int:
        """Post an event, unless an attempt before has; return Airflow's number of it."""
        connection = await read_connection(ctx, self.connection)
        name = self.asset or event.dataset.uri
        async with AirflowApi(connection) as api:
            number = await api.asset_id(name)
            if number is None:
                raise Fail(
                    f"Airflow has no asset {name!r}: it has those that a DAG there names; or give "
                    "another by asset="
                )
            # What an attempt has posted that died before it was recorded.
            for found in await api.asset_events(number, ctx.run.created_at - _CLOCKS):
                if (found["extra"] or {}).get(OURS) == event.event_id:
                    return int(found["id"])
            extra = {**event.extra, OURS: event.event_id}
            made = await api.post_asset_event(number, extra, event.partition)
        ctx.log.info("airflow.event_posted", asset=name, number=made["id"])
        return int(made["id"])
