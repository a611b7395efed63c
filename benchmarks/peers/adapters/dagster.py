"""Dagster: webserver, daemon and code server, on PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from benchmarks.peers.adapters.served import ServedPeer
from benchmarks.peers.peer import Site
from benchmarks.peers.ports import free_port
from benchmarks.peers.senders import RefusedError, rate_of

_BY_EVENT = ("one", "slow", "fan")
_LOCATION = "peers"
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on PythonError { message }
  }
}
"""
_LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries {
  loadStatus locationOrLoadError {
    ... on RepositoryLocation { repositories { name } }
    ... on PythonError { message }
  }
} } } }
"""
_RELOAD = "mutation { reloadWorkspace { __typename } }"
_UNREACHABLE = "DagsterUserCodeUnreachableError"
_DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { healthy required } } } }"
_INSTANCE = """
telemetry: {{enabled: false}}
storage:
  postgres:
    postgres_url: {url}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {{dequeue_interval_seconds: {dequeue}}}
run_monitoring: {{enabled: {monitoring}}}
run_retries: {{enabled: {monitoring}, max_retries: {retries}}}
"""
_WORKSPACE = (
    "load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: {name}}}}}]\n"
)


class Dagster(ServedPeer):
    """Reported materialisations start `one`, `slow` and `fan` by sensors, GraphQL the others."""

    name = "dagster"
    settings: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "default": {
            "PEERS_SENSOR_SECONDS": "30",
            "PEERS_EXECUTOR": "multiprocess",
            "PEERS_DEQUEUE_SECONDS": "5",
            "PEERS_MONITORING": "false",
            "PEERS_RETRIES": "0",
        },
        "tuned": {
            "PEERS_SENSOR_SECONDS": "1",
            "PEERS_EXECUTOR": "in_process",
            "PEERS_DEQUEUE_SECONDS": "1",
            "PEERS_MONITORING": "true",
            "PEERS_RETRIES": "3",
        },
    }

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._code_port = free_port()
        self._repository = ""

    def prepare(self) -> None:
        """Place the definitions and the files of the instance."""
        self._definitions = self.site.place_program("dagster_definitions.py")
        home = self.site.folder / "home"
        home.mkdir()
        environ = self.site.environ
        instance = _INSTANCE.format(
            url=self.site.database.url("postgresql+psycopg2"),
            dequeue=environ["PEERS_DEQUEUE_SECONDS"],
            monitoring=environ["PEERS_MONITORING"],
            retries=environ["PEERS_RETRIES"],
        )
        (home / "dagster.yaml").write_text(instance)
        self._workspace = self.site.folder / "workspace.yaml"
        self._workspace.write_text(_WORKSPACE.format(port=self._code_port, name=_LOCATION))
        environ |= {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes"}

    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the code server, the webserver and the daemon."""
        environment, workspace = self.site.environment, str(self._workspace)
        local = ("-h", "127.0.0.1", "-p")
        return {
            "code": [
                environment.program("dagster"),
                *("code-server", "start", "-f", str(self._definitions)),
                *("-d", str(self._definitions.parent), *local, str(self._code_port)),
            ],
            "webserver": [
                environment.program("dagster-webserver"),
                *("-w", workspace, *local, str(self.port)),
            ],
            "daemon": [environment.program("dagster-daemon"), "run", "-w", workspace],
        }

    def is_ready(self) -> bool:
        """Return whether the code is loaded and all daemons are healthy.

        Raises:
            RuntimeError: The code cannot be loaded.
        """
        try:
            self.http.call("GET", "/server_info")
            (entry,) = self._query(_LOCATIONS)["workspaceOrError"]["locationEntries"]
            if entry["loadStatus"] != "LOADED":
                return False
            location = entry["locationOrLoadError"]
            if _UNREACHABLE in location.get("message", ""):
                # The code server, which starts beside, came later: the webserver looks once.
                self._query(_RELOAD)
                return False
            if "message" in location:
                raise RuntimeError(location["message"])
            self._repository = location["repositories"][0]["name"]
            daemons = self._query(_DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return all(each["healthy"] for each in daemons if each["required"])

    def _query(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        body = {"query": query, "variables": variables or {}}
        return self.http.call("POST", "/graphql", body)["data"]

    def send(self, workload: str, keys: Sequence[str]) -> None:
        """Report a materialisation, or launch a run, for each key."""
        for key in keys:
            if workload in _BY_EVENT:
                body = {"metadata": {"key": key}}
                self.http.call("POST", f"/report_asset_materialization/{workload}", body)
            else:
                self._launch("chain_0" if workload == "chain" else workload, key)

    def _launch(self, job: str, key: str) -> None:
        selector = {
            "repositoryLocationName": _LOCATION,
            "repositoryName": self._repository,
            "jobName": job,
        }
        params = {
            "selector": selector,
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "peers/key", "value": key}]},
        }
        answer = self._query(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise RefusedError(f"{job}: {answer}")

    def post(self, count: int, clients: int) -> float:
        """Report materialisations of an asset that no sensor watches."""
        return rate_of(self.http, "/report_asset_materialization/unheard", dict, count, clients)
