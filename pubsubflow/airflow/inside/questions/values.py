"""Questions about variables, and about values that tasks and assets keep (Airflow 3.3)."""

import json
from typing import Any

from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms as messages

from pubsubflow.airflow.inside.questions.handling import OK, Handlers, absent, answers


class ValueQuestions(Handlers):
    """Answers questions about variables and kept values; changes take effect at once."""

    @answers("PutVariable")
    def put_variable(self, msg: Any) -> Any:
        """Set a variable."""
        self.fact("set_variable", name=msg.key, value=msg.value or "", description=msg.description)
        return OK

    @answers("DeleteVariable")
    def delete_variable(self, msg: Any) -> Any:
        """Remove a variable, and answer how many there were."""
        return _removed(self.fact("set_variable", name=msg.key, value=None))

    @answers("GetVariableKeys")
    def get_variable_keys(self, msg: Any) -> Any:
        """Answer with the names of variables."""
        found = self.fact(
            "variables", prefix=msg.prefix or "", limit=msg.limit, offset=msg.offset
        ) or {"names": [], "total": 0}
        return messages.VariableKeysResult(keys=found["names"], total_entries=found["total"])

    @answers("GetTaskStateStore")
    def get_task_state_store(self, msg: Any) -> Any:
        """Answer with a value that the attempts of this task keep."""
        found = self.fact("state", operation="get", key=msg.key)
        if found is None:
            return absent(ErrorType.TASK_STORE_NOT_FOUND, key=msg.key)
        return messages.TaskStateStoreResult(value=json.loads(found["value"]))

    @answers("SetTaskStateStore")
    def set_task_state_store(self, msg: Any) -> Any:
        """Keep a value for the attempts of this task."""
        self.fact(
            "state",
            operation="set",
            key=msg.key,
            value=json.dumps(msg.value),
            expires_at=msg.expires_at,
        )
        return OK

    @answers("DeleteTaskStateStore")
    def delete_task_state_store(self, msg: Any) -> Any:
        """Remove a value of this task."""
        self.fact("state", operation="delete", key=msg.key)
        return OK

    @answers("ClearTaskStateStore")
    def clear_task_state_store(self, msg: Any) -> Any:  # noqa: ARG002
        """Remove all values of this task."""
        self.fact("state", operation="clear")
        return OK

    @answers("GetAssetStateStoreByName", "GetAssetStateStoreByUri")
    def get_asset_state_store(self, msg: Any) -> Any:
        """Answer with a value that an asset keeps."""
        found = self.fact("state", operation="get", key=msg.key, asset=self.asset_of(msg))
        if found is None:
            return absent(ErrorType.ASSET_STORE_NOT_FOUND, key=msg.key)
        return messages.AssetStateStoreResult(value=json.loads(found["value"]))

    @answers("SetAssetStateStoreByName", "SetAssetStateStoreByUri")
    def set_asset_state_store(self, msg: Any) -> Any:
        """Keep a value for an asset."""
        self.fact(
            "state",
            operation="set",
            key=msg.key,
            value=json.dumps(msg.value),
            asset=self.asset_of(msg),
        )
        return OK

    @answers("DeleteAssetStateStoreByName", "DeleteAssetStateStoreByUri")
    def delete_asset_state_store(self, msg: Any) -> Any:
        """Remove a value of an asset."""
        self.fact("state", operation="delete", key=msg.key, asset=self.asset_of(msg))
        return OK

    @answers("ClearAssetStateStoreByName", "ClearAssetStateStoreByUri")
    def clear_asset_state_store(self, msg: Any) -> Any:
        """Remove all values of an asset."""
        self.fact("state", operation="clear", asset=self.asset_of(msg))
        return OK

    def asset_of(self, msg: Any) -> dict[str, Any]:
        """Return the asset that a message names, which the DAG may know by more than that."""
        name, uri = getattr(msg, "name", None), getattr(msg, "uri", None)
        found = self.request("asset", **({"uri": uri} if name is None else {"name": name}))
        found = found or {"name": name or uri, "uri": uri or name}
        return {"name": found["name"], "uri": found["uri"]}


def _removed(known: Any) -> Any:
    return messages.OKResponse(ok=bool(known))
