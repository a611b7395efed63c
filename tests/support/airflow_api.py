"""An Airflow's REST API in memory: assets, events and runs, as its OpenAPI document has them."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import web

EVENT_QUERY = {"asset_id", "timestamp_gte", "order_by", "limit", "offset"}


class FakeAirflow:
    """Its state, and how it answers.

    Attributes:
        broken: How many of the next requests it answers with 503.
        posted: The bodies of events that were posted.
        after_post: Called after an event is stored, before the answer.
    """

    def __init__(self):
        self.assets = ["s3://lake/orders", "plain"]
        self.events = []
        self.runs = []
        self.broken = 0
        self.tokens = 0
        self.posted = []
        self.after_post = lambda: None
        self.url = ""

    def add(self, asset, extra=None, moment=None):
        number = len(self.events) + 1
        moment = moment or datetime.now(UTC)
        name = self.assets[asset - 1]
        fields = dict.fromkeys(("source_task_id", "source_dag_id", "source_run_id"))
        self.events.append(
            {
                "id": number,
                "asset_id": asset,
                "uri": name,
                "name": name,
                "extra": extra,
                "source_map_index": -1,
                "created_dagruns": [],
                "partition_key": None,
                "timestamp": moment.isoformat().replace("+00:00", "Z"),
                **fields,
            }
        )
        return self.events[-1]

    async def token(self, request):
        assert (await request.json()).keys() == {"username", "password"}
        self.tokens += 1
        return web.json_response({"access_token": f"t{self.tokens}"}, status=201)

    def check(self, request):
        if request.headers.get("Authorization") != f"Bearer t{self.tokens}":
            raise web.HTTPUnauthorized
        if self.broken:
            self.broken -= 1
            raise web.HTTPServiceUnavailable

    def page(self, request, key, items):
        first, size = int(request.query["offset"]), int(request.query["limit"])
        return web.json_response({key: items[first : first + size], "total_entries": len(items)})

    async def list_assets(self, request):
        self.check(request)
        (field,) = request.query.keys() - {"limit", "offset"}
        wanted = request.query[field]
        assert field in {"uri_pattern", "name_pattern"}
        found = [
            {"id": number, "uri": name, "name": name}
            for number, name in enumerate(self.assets, 1)
            if wanted in name
        ]
        return self.page(request, "assets", found)

    async def list_events(self, request):
        self.check(request)
        assert request.query.keys() == EVENT_QUERY
        since = datetime.fromisoformat(request.query["timestamp_gte"])
        found = [
            each
            for each in self.events
            if each["asset_id"] == int(request.query["asset_id"])
            and datetime.fromisoformat(each["timestamp"]) >= since
        ]
        return self.page(
            request, "asset_events", sorted(found, key=lambda each: each[request.query["order_by"]])
        )

    async def post_event(self, request):
        self.check(request)
        body = await request.json()
        assert body.keys() <= {"asset_id", "extra", "partition_key"}
        self.posted.append(body)
        made = self.add(body["asset_id"], {**body["extra"], "from_rest_api": True})
        self.after_post()
        return web.json_response(made)

    async def list_runs(self, request):
        self.check(request)
        if request.match_info["dag_id"] != "produce":
            raise web.HTTPNotFound
        since = datetime.fromisoformat(request.query["end_date_gte"])
        assert request.query["order_by"] == "end_date"
        found = [run for run in self.runs if datetime.fromisoformat(run["end_date"]) >= since]
        return self.page(request, "dag_runs", found)


@asynccontextmanager
async def fake_airflow():
    """Serve one."""
    airflow = FakeAirflow()
    application = web.Application()
    application.router.add_post("/auth/token", airflow.token)
    application.router.add_get("/api/v2/assets", airflow.list_assets)
    application.router.add_get("/api/v2/assets/events", airflow.list_events)
    application.router.add_post("/api/v2/assets/events", airflow.post_event)
    application.router.add_get("/api/v2/dags/{dag_id}/dagRuns", airflow.list_runs)
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        airflow.url = f"http://{host}:{port}"
        yield airflow
    finally:
        await runner.cleanup()
