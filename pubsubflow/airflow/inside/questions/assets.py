"""Questions about events of assets."""

from typing import Any

from airflow.sdk.execution_time import comms as messages

from pubsubflow.airflow.inside.questions.handling import answers
from pubsubflow.airflow.inside.questions.values import ValueQuestions


class AssetQuestions(ValueQuestions):
    """Answers questions about assets and their events."""

    @answers("GetAssetByName", "GetAssetByUri")
    def get_asset(self, msg: Any) -> Any:
        """Answer with an asset."""
        return messages.AssetResult(**self.asset_of(msg), group="asset", extra={})

    @answers("GetAssetsByAlias")
    def get_assets_by_alias(self, msg: Any) -> Any:  # noqa: ARG002
        """Answer with none: which assets came through an alias is not kept, their events are."""
        return messages.AssetsByAliasResult(assets=[])

    @answers("GetAssetEventByAsset")
    def get_asset_event_by_asset(self, msg: Any) -> Any:
        """Answer with events of an asset."""
        asset = self.asset_of(msg)
        return self._events(msg, asset, asset)

    @answers("GetAssetEventByAssetAlias")
    def get_asset_event_by_asset_alias(self, msg: Any) -> Any:
        """Answer with events that came through an alias."""
        name = msg.alias_name
        return self._events(msg, {"name": name, "kind": "alias"}, {"name": name, "uri": name})

    def _events(self, msg: Any, asset: dict[str, Any], shown: dict[str, Any]) -> Any:
        found = self.fact(
            "events",
            asset=asset,
            after=msg.after,
            before=msg.before,
            limit=msg.limit,
            ascending=msg.ascending,
        )
        events = [_event(number, each, shown) for number, each in enumerate(found or ())]
        return messages.AssetEventsResult(asset_events=events)


def _event(number: int, event: dict[str, Any], asset: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "timestamp": event["time"],
        "extra": event["extra"],
        "asset": {**asset, "group": "asset", "extra": {}},
        "created_dagruns": [],
        "source_task_id": event["task_id"],
        "source_dag_id": event["dag_id"],
        "source_run_id": event["run_id"],
        "source_map_index": -1 if event["run_id"] else None,
        "partition_key": event["partition"],
    }
