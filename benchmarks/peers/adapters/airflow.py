"""Airflow: its four processes with the local executor, on PostgreSQL."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from benchmarks.peers.adapters.served import ServedPeer
from benchmarks.peers.peer import Site
from benchmarks.peers.ports import free_port
from benchmarks.peers.senders import RefusedError, rate_of

_COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
_BY_EVENT = ("one", "slow", "fan")
_DAGS = 26
_SECRET = "peers" * 10
_NEEDED = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}
_TUNED = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.05",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_TO_CREATE_PER_LOOP": "100",
    "AIRFLOW__SCHEDULER__MAX_DAGRUNS_PER_LOOP_TO_SCHEDULE": "100",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
}


class Airflow(ServedPeer):
    """Asset events start `one`, `slow` and `fan`, runs of the API the others."""

    name = "airflow"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "default": _NEEDED,
        "tuned": {**_NEEDED, **_TUNED},
    }

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._token: dict[str, str] = {}
        self._assets: dict[str, int] = {}

    def prepare(self) -> None:
        """Place the DAG file and make the tables."""
        dags = self.site.place_program("airflow_dags.py").parent
        here = f"http://127.0.0.1:{self.port}"
        self.site.environ |= {
            "AIRFLOW_HOME": str(self.site.folder / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{here}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.site.database.url("postgresql+psycopg2"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": here,
            "AIRFLOW__API__SECRET_KEY": _SECRET,
            "AIRFLOW__API_AUTH__JWT_SECRET": _SECRET,
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        }
        with (self.site.folder / "prepare.log").open("wb") as log:
            command = [self.site.environment.program("airflow"), "db", "migrate"]
            subprocess.run(command, env=self.site.environ, check=True, stdout=log, stderr=log)

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return its four components."""
        program = self.site.environment.program("airflow")
        return {name: [program, name] for name in _COMPONENTS}

    def is_ready(self) -> bool:
        """Return whether all components are healthy and the DAGs known."""
        try:
            health = self.http.call("GET", "/api/v2/monitor/health")
            parts = ("scheduler", "triggerer", "dag_processor")
            if any(health[part]["status"] != "healthy" for part in parts):
                return False
            if not self._token:
                self._sign_in()
            found = self.http.call("GET", "/api/v2/dags?limit=1")
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return bool(found["total_entries"] >= _DAGS)

    def _sign_in(self) -> None:
        try:
            answer = self.http.call("GET", "/auth/token")
        except RefusedError:
            answer = self.http.call("POST", "/auth/token", {})
        self._token = {"Authorization": f"Bearer {answer['access_token']}"}
        self.http.headers.update(self._token)

    def send(self, workload: str, keys: Sequence[str]) -> None:
        """Post an asset event, or a run, for each key."""
        for key in keys:
            if workload in _BY_EVENT:
                self.http.call("POST", "/api/v2/assets/events", self._event(workload, key))
            else:
                body = {"logical_date": None, "conf": {"key": key}}
                dag = "chain_0" if workload == "chain" else workload
                self.http.call("POST", f"/api/v2/dags/{dag}/dagRuns", body)

    def _event(self, name: str, key: str) -> dict[str, Any]:
        if name not in self._assets:
            found = self.http.call("GET", f"/api/v2/assets?name_pattern={name}&limit=100")
            self._assets |= {each["name"]: each["id"] for each in found["assets"]}
        return {"asset_id": self._assets[name], "extra": {"key": key}}

    def post(self, count: int, clients: int) -> float:
        """Post events of an asset whose only DAG is paused."""
        body = self._event("unheard", "-")
        return rate_of(self.http, "/api/v2/assets/events", lambda: body, count, clients)
