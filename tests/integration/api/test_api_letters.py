"""Dead letters: shown, mended and sent again."""

import pytest
from api_rig import dag, task

pytestmark = pytest.mark.anyio

EVENTS, LETTERS = "/api/v1/datasets/events", "/api/v1/dead-letters"
A = "s3://lake/a"


async def refuse(rig):
    """Let a run be refused; return its event and the dead letter."""
    await rig.load(
        dag("d", task(0, "work"), on=[A], params={"n": 1}, params_from={"n": "event.extra.n"})
    )
    (event_id,) = (await rig.post(EVENTS, {"dataset": A}))["ids"]
    (letter,) = (await rig.get(LETTERS))["items"]
    return event_id, letter


async def put(database, payload, kind="message"):
    async with database.connection() as connection:
        return await connection.fetchval(
            "INSERT INTO dead_letter (kind, subject, payload, reason)"
            " VALUES ($1, 'psf.in.x', $2, 'no') RETURNING id",
            kind,
            payload,
        )


async def test_a_letter_shows_what_it_holds_and_why(rig):
    event_id, letter = await refuse(rig)
    assert (letter["kind"], letter["dag_id"], letter["resent_at"]) == ("params", "d", None)
    shown = await rig.get(f"{LETTERS}/{letter['id']}")
    assert (shown["editable"], shown["payload"]["events"]) == (True, [event_id])
    assert "event.extra.n" in shown["reason"]


async def test_a_mended_letter_makes_the_run_with_its_event_once(rig):
    event_id, letter = await refuse(rig)
    payload = (await rig.get(f"{LETTERS}/{letter['id']}"))["payload"]
    mended = {"payload": {**payload, "params": {"n": 7}}}
    made = await rig.post(f"{LETTERS}/{letter['id']}/resend", mended, status=200)
    told = await rig.get(f"/api/v1/runs/{made['run_id']}/explain")
    assert told["runs"][0]["run"]["params"] == {"n": 7}
    assert [event["event_id"] for event in told["runs"][0]["events"]] == [event_id]
    (fate,) = (await rig.get(f"{EVENTS}?event={event_id}"))["items"][0]["fates"]
    assert (fate["fate"], fate["run_id"]) == ("consumed", made["run_id"])
    assert (await rig.get(LETTERS))["items"] == []
    assert len((await rig.get(f"{LETTERS}?resent=true"))["items"]) == 1
    again = await rig.post(f"{LETTERS}/{letter['id']}/resend", mended, status=422)
    assert "already" in again["detail"]


async def test_a_letter_that_is_refused_again_says_where_it_is_now(rig):
    _, letter = await refuse(rig)
    problem = await rig.post(f"{LETTERS}/{letter['id']}/resend", {}, status=409)
    (newer,) = (await rig.get(LETTERS))["items"]
    assert f"dead letter {newer['id']}" in problem["detail"]
    assert (await rig.get("/api/v1/runs"))["items"] == []


@pytest.mark.parametrize("payload", [[], {"dag_id": "d"}, {"colour": 1}, "text"])
async def test_a_payload_of_another_form_is_refused_and_the_letter_stays(rig, payload):
    _, letter = await refuse(rig)
    await rig.post(f"{LETTERS}/{letter['id']}/resend", {"payload": payload}, status=422)
    assert [each["id"] for each in (await rig.get(LETTERS))["items"]] == [letter["id"]]


@pytest.mark.parametrize(
    ("payload", "shown"),
    [(b'{"a": 1}', {"a": 1}), (b"\x93\x01\x02\xa1x", [1, 2, "x"]), (b"\xff\x00", "\ufffd\x00")],
)
async def test_a_message_is_shown_decoded_and_not_edited(rig, database, payload, shown):
    number = await put(database, payload)
    found = await rig.get(f"{LETTERS}/{number}")
    assert (found["payload"], found["editable"], found["subject"]) == (shown, False, "psf.in.x")
    problem = await rig.post(f"{LETTERS}/{number}/resend", {"payload": {}}, status=422)
    assert "as it is" in problem["detail"]


@pytest.mark.parametrize("number", ["0", "7", "-1", "x", "99999999999999999999999"])
async def test_an_unknown_letter_is_404(rig, number):
    await rig.get(f"{LETTERS}/{number}", status=404)
    await rig.post(f"{LETTERS}/{number}/resend", {}, status=404)
