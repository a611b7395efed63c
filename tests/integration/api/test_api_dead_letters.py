"""Dead letters: shown, mended and sent again."""

import pytest

from support.specs import dag, task

pytestmark = pytest.mark.anyio

EVENTS, LETTERS_PATH = "/api/v1/datasets/events", "/api/v1/dead-letters"
A = "s3://lake/a"


async def refuse(harness):
    """Let a run be refused; return its event and the dead letter."""
    await harness.load(
        dag("d", task("work"), on=[A], params={"n": 1}, params_from={"n": "event.extra.n"})
    )
    (event_id,) = (await harness.post(EVENTS, {"dataset": A}))["ids"]
    (dead_letter,) = (await harness.get(LETTERS_PATH))["items"]
    return event_id, dead_letter


async def put(database, payload, kind="message"):
    async with database.connection() as connection:
        return await connection.fetchval(
            "INSERT INTO dead_letter (kind, subject, payload, reason)"
            " VALUES ($1, 'psf.in.x', $2, 'no') RETURNING id",
            kind,
            payload,
        )


async def test_a_letter_shows_what_it_holds_and_why(harness):
    event_id, dead_letter = await refuse(harness)
    assert (dead_letter["kind"], dead_letter["dag_id"], dead_letter["resent_at"]) == (
        "params",
        "d",
        None,
    )
    shown = await harness.get(f"{LETTERS_PATH}/{dead_letter['id']}")
    assert (shown["editable"], shown["payload"]["events"]) == (True, [event_id])
    assert "event.extra.n" in shown["reason"]


async def test_a_mended_letter_makes_the_run_with_its_event_once(harness):
    event_id, dead_letter = await refuse(harness)
    payload = (await harness.get(f"{LETTERS_PATH}/{dead_letter['id']}"))["payload"]
    mended = {"payload": {**payload, "params": {"n": 7}}}
    made = await harness.post(f"{LETTERS_PATH}/{dead_letter['id']}/resend", mended, status=200)
    reply = await harness.get(f"/api/v1/runs/{made['run_id']}/explain")
    assert reply["runs"][0]["run"]["params"] == {"n": 7}
    assert [event["event_id"] for event in reply["runs"][0]["events"]] == [event_id]
    (outcome,) = (await harness.get(f"{EVENTS}?event={event_id}"))["items"][0]["fates"]
    assert (outcome["fate"], outcome["run_id"]) == ("consumed", made["run_id"])
    assert (await harness.get(LETTERS_PATH))["items"] == []
    assert len((await harness.get(f"{LETTERS_PATH}?resent=true"))["items"]) == 1
    again = await harness.post(f"{LETTERS_PATH}/{dead_letter['id']}/resend", mended, status=422)
    assert "already" in again["detail"]


async def test_a_letter_that_is_refused_again_says_where_it_is_now(harness):
    _, dead_letter = await refuse(harness)
    problem = await harness.post(f"{LETTERS_PATH}/{dead_letter['id']}/resend", {}, status=409)
    (newer,) = (await harness.get(LETTERS_PATH))["items"]
    assert f"dead letter {newer['id']}" in problem["detail"]
    assert (await harness.get("/api/v1/runs"))["items"] == []


@pytest.mark.parametrize("payload", [[], {"dag_id": "d"}, {"colour": 1}, "text"])
async def test_a_payload_of_another_form_is_refused_and_the_letter_stays(harness, payload):
    _, dead_letter = await refuse(harness)
    await harness.post(
        f"{LETTERS_PATH}/{dead_letter['id']}/resend", {"payload": payload}, status=422
    )
    assert [each["id"] for each in (await harness.get(LETTERS_PATH))["items"]] == [
        dead_letter["id"]
    ]


@pytest.mark.parametrize(
    ("payload", "shown"),
    [(b'{"a": 1}', {"a": 1}), (b"\x93\x01\x02\xa1x", [1, 2, "x"]), (b"\xff\x00", "\ufffd\x00")],
)
async def test_a_message_is_shown_decoded_and_not_edited(harness, database, payload, shown):
    number = await put(database, payload)
    found = await harness.get(f"{LETTERS_PATH}/{number}")
    assert (found["payload"], found["editable"], found["subject"]) == (shown, False, "psf.in.x")
    problem = await harness.post(f"{LETTERS_PATH}/{number}/resend", {"payload": {}}, status=422)
    assert "as it is" in problem["detail"]


async def test_a_letter_that_is_nested_too_deeply_is_shown_as_text(harness, database):
    number = await put(database, b'{"a":' + b"[" * 980 + b"]" * 980 + b"}")
    shown = await harness.get(f"{LETTERS_PATH}/{number}")
    assert shown["payload"].startswith('{"a":[[[[')
    await harness.get(LETTERS_PATH)


@pytest.mark.parametrize("number", ["0", "7", "-1", "x", "99999999999999999999999"])
async def test_an_unknown_letter_is_404(harness, number):
    await harness.get(f"{LETTERS_PATH}/{number}", status=404)
    await harness.post(f"{LETTERS_PATH}/{number}/resend", {}, status=404)
