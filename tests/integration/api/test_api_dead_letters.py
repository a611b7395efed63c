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
    place = f"{LETTERS_PATH}/{dead_letter['id']}/resend"
    tried = await harness.post(place, {"dry_run": True}, status=200)
    assert "event.extra.n" in tried["refused"]  # as it is, it would be refused again
    tried = await harness.post(place, {**mended, "dry_run": True}, status=200)
    assert (tried["would"], tried["params"]) == ("a run of d would start", {"n": 7})
    many = {"kind": "params", "dry_run": True}
    tried = await harness.post(f"{LETTERS_PATH}/resend", many, status=200)
    assert [each["id"] for each in tried["refused"]] == [dead_letter["id"]]
    tried = await harness.post(f"{LETTERS_PATH}/discard", many, status=200)
    assert tried["discarded"] == [dead_letter["id"]]
    assert len((await harness.get(LETTERS_PATH))["items"]) == 1  # nothing was done
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


async def refuse_some(harness):
    """Let runs be refused for two reasons; return the numbers of their letters by reason."""
    await harness.load(
        dag("d", task("work"), on=[A], params={"n": 1}, params_from={"n": "event.extra.n"})
    )
    for extra in ({}, {"n": "one"}, {"n": "two"}, {"n": "three"}):
        await harness.post(EVENTS, {"dataset": A, "extra": extra})
    letters = (await harness.get(LETTERS_PATH))["items"]
    assert len(letters) == 4
    return (
        sorted(each["id"] for each in letters if "must be a number" in each["reason"]),
        sorted(each["id"] for each in letters if "failed" in each["reason"]),
    )


async def test_letters_are_counted_by_reason_without_what_differs(harness):
    types, missing = await refuse_some(harness)
    groups = (await harness.get(f"{LETTERS_PATH}/summary"))["groups"]
    assert [(each["count"], each["kind"], each["dag_id"]) for each in groups] == [
        (3, "params", "d"),
        (1, "params", "d"),
    ]
    assert "…" in groups[0]["reason"]
    assert (groups[0]["example"], groups[1]["example"]) == (types[-1], missing[0])
    query = {"reason": groups[0]["reason"], "kind": "params", "dag": "d"}
    found = (await harness.get(LETTERS_PATH, params=query))["items"]
    assert sorted(each["id"] for each in found) == types
    assert (await harness.get(LETTERS_PATH, params=query | {"dag": "x"}))["items"] == []


async def test_letters_are_discarded_by_number_and_by_reason(harness):
    types, missing = await refuse_some(harness)
    done = await harness.post(f"{LETTERS_PATH}/discard", {"ids": [*missing, 10**6]}, status=200)
    assert done == {"discarded": missing, "more": False}
    again = await harness.post(f"{LETTERS_PATH}/discard", {"ids": missing}, status=200)
    assert again["discarded"] == []
    shown = await harness.get(f"{LETTERS_PATH}/{missing[0]}")
    assert (shown["resent_at"], shown["revision"]) == (None, "discarded")
    assert shown["discarded_at"] is not None
    problem = await harness.post(f"{LETTERS_PATH}/{missing[0]}/resend", {}, status=422)
    assert "was discarded" in problem["detail"]
    (group,) = (await harness.get(f"{LETTERS_PATH}/summary"))["groups"]
    some = {"reason": group["reason"], "limit": 2}
    done = await harness.post(f"{LETTERS_PATH}/discard", some, status=200)
    assert done == {"discarded": types[:2], "more": True}
    assert [each["id"] for each in (await harness.get(LETTERS_PATH))["items"]] == types[2:]
    assert len((await harness.get(f"{LETTERS_PATH}?resent=true"))["items"]) == 4
    last = (await harness.get("/api/v1/audit?limit=1"))["items"][0]
    assert last["action"] == f"POST {LETTERS_PATH}/discard"
    assert group["reason"][:20] in last["object"]


async def test_many_letters_are_resent_and_what_is_refused_holds_up_no_other(harness, database):
    types, missing = await refuse_some(harness)
    message = await put(database, b"m")
    # The default changes its type, so that what was refused for its type fits now.
    await harness.load(
        dag("d", task("work"), on=[A], params={"n": ""}, params_from={"n": "event.extra.n"})
    )
    done = await harness.post(f"{LETTERS_PATH}/resend", {"all": True}, status=200)
    assert [each["id"] for each in done["resent"]] == [*types, message]
    assert [each["id"] for each in done["refused"]] == missing
    assert "it was refused again" in done["refused"][0]["reason"]
    assert done["more"] is False
    assert len((await harness.get("/api/v1/runs"))["items"]) == 3
    # The one that was refused again is a new letter, which the same request does not try.
    assert len((await harness.get(LETTERS_PATH, params={"kind": "params"}))["items"]) == 1


@pytest.mark.parametrize("body", [{}, {"limit": 5}, {"ids": []}, {"all": False}, {"al": True}])
async def test_a_request_about_many_letters_selects_some(harness, body):
    for name in ("resend", "discard"):
        await harness.post(f"{LETTERS_PATH}/{name}", body, status=422)
