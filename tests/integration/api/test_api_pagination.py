"""Lists come in pages: nothing twice, nothing left out, however many rows come in between."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pubsubflow.api.http.pagination import read_cursor, with_cursor
from pubsubflow.api.http.problems import BadRequest
from pubsubflow.authoring.registry import loading
from pubsubflow.model.api.resources import Page
from pubsubflow.webhooks import Unverified, Webhook
from support.specs import dag, loaded, task

pytestmark = pytest.mark.anyio
EVENTS = "/api/v1/datasets/events"
LISTS = {
    "/api/v1/dags": "dag_id",
    "/api/v1/runs": "run_id",
    EVENTS: "event_id",
    "/api/v1/datasets": "dataset",
    "/api/v1/dead-letters": "id",
    "/api/v1/hooks": "name",
}
NUMBERED = (EVENTS, "/api/v1/dead-letters", "/api/v1/triggers", "/api/v1/runs")


async def test_what_is_no_cursor_of_a_list_is_refused(harness):
    await harness.load(dag("d", task("work")))
    run_id = await harness.start("d")
    foreign = with_cursor("others", Page([], "1")).next
    newline = base64.urlsafe_b64encode(b"no line").decode()
    wrong = ["", "x", "=", "ł", "\x00", "a" * 7000, foreign, newline, foreign + "="]
    for path in [*LISTS, "/api/v1/triggers", f"/api/v1/runs/{run_id}/tasks"]:
        mine = path.rpartition("/")[2]
        odd = ["a\x00b", "-1", str(2**63)] if path in NUMBERED else ["a\x00b"]
        for cursor in [*wrong, *(with_cursor(mine, Page([], text)).next for text in odd)]:
            refused = await harness.get(f"{path}?after={quote(cursor)}", status=400)
            assert "NUL" in refused["detail"] or refused["field"] == "after", (path, cursor)


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="\n")))
def test_a_cursor_holds_its_place_and_belongs_to_one_list(place, name):
    cursor = with_cursor(name, Page([], place)).next
    try:
        assert read_cursor(name, cursor, str) == place
    except BadRequest:
        assert "\x00" in place
    with pytest.raises(BadRequest):
        read_cursor(f"{name}s", cursor, str)


class ListedRows:
    """Rows of every list, which tests make one by one."""

    def __init__(self, harness):
        self.harness = harness
        self.count = 0

    async def add(self):
        """Add one row to every list."""
        self.count += 1
        number = f"{self.count * 7919 % 1000:03}"  # in no order
        with loading(f"h{number}.py") as collected:
            Webhook(f"h{number}", dataset="s3://a/h", verify=Unverified())
        hooks = tuple(each.to_spec() for each in collected.hooks.values())
        spec = dag(f"d{number}", task("work"))
        await self.harness.load(spec)
        await self.harness.catalog.save([loaded(file=f"h{number}.py", hooks=hooks)])
        await self.harness.start(spec.dag_id)
        await self.harness.post(EVENTS, {"dataset": f"s3://a/{number}"})
        async with self.harness.database.connection() as connection:
            await connection.execute(
                "INSERT INTO dead_letter (kind, subject, payload, reason)"
                " VALUES ('message', 's', 'x', 'no')"
            )
        self.harness.bus.publish("psf.ctl.dags", b"")

    async def ids(self, path, limit=1000, between=None):
        """Return a list's keys, page by page; something may happen between two pages."""
        found, after = [], ""
        while True:
            page = await self.harness.get(f"{path}?limit={limit}{after}")
            assert len(page["items"]) <= limit
            found += [each[LISTS[path]] for each in page["items"]]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"
            if between is not None:
                await between()


@pytest.fixture
async def rows(harness):
    rows = ListedRows(harness)
    for _ in range(5):
        await rows.add()
    await harness.get_until("/api/v1/hooks", lambda found: len(found["items"]) == rows.count)
    return rows


@given(data=st.data())
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
async def test_lists_are_stable_while_rows_come(rows, data):
    """What was there comes once, in order, and nothing comes twice."""
    for path in LISTS:
        before = await rows.ids(path)
        rounds = iter(data.draw(st.permutations([True, False, False])))

        async def between(rounds=rounds):
            if next(rounds, False):
                await rows.add()

        seen = await rows.ids(path, data.draw(st.integers(2, 4)), between)
        assert len(seen) == len(set(seen)), path
        assert [each for each in seen if each in before] == before, path


async def test_tasks_of_a_run_page_through_what_has_not_started_too(harness):
    await harness.load(dag("d", *(task(f"t{node}") for node in range(5))))
    run_id = await harness.start("d")
    await harness.begin(run_id, 3)
    path = f"/api/v1/runs/{run_id}/tasks"
    found, after = [], ""
    for number in range(3):
        page = await harness.get(f"{path}?limit=2{after}")
        found += [each["task_id"] for each in page["items"]]
        after = f"&after={page['next']}"
        if number == 0:  # one that was passed ends, one that comes starts
            await harness.finish(run_id, 0)
            await harness.begin(run_id, 4)
    assert found == [f"t{node}" for node in range(5)]
    assert page["next"] is None
    await harness.get(f"{path}{after.replace('&', '?')}", status=400)
