import itertools
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest
from imap_server import PASSWORD, USER, Inbox, free_port, imap_server
from pubsubflow_triggers.imap import MailArrives
from trigger_rig import beside, fired

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import JumpingClock

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def port():
    port = free_port()
    with imap_server(port):
        yield port


@pytest.fixture
def inbox(port):
    """A folder of the test's own."""
    with Inbox(port, f"Folder {next(_numbers)}") as inbox:
        yield inbox


def mails(inbox, **fields):
    given = {"port": inbox.port, "folder": inbox.folder, "password": PASSWORD} | fields
    return MailArrives(**{"host": "127.0.0.1", "user": USER, "tls": False} | given)


def at_noon():
    return JumpingClock(NOON)


async def test_mail_that_arrives_fires_with_its_text(inbox):
    async with beside(mails(inbox, interval=timedelta(seconds=0.1)), 2) as ctx:
        await ctx.until("imap.watching")
        inbox.put(subject="Zażółć", text="gęślą\njaźń\n")
        await ctx.until("fired")
        inbox.put(subject="second")
    first, second = ctx.events
    assert first.payload == {
        "from": "Ann <ann@example.com>",
        "subject": "Zażółć",
        "date": "Fri, 20 Nov 2026 12:00:00 +0100",
        "text": "gęślą\njaźń\n",
        "uid": first.position["uid"],
    }
    assert second.position["uid"] == first.position["uid"] + 1
    assert second.id == f"{second.position['validity']}:{second.position['uid']}"


async def test_server_with_idle_tells_of_mail_by_itself(inbox):
    async with beside(mails(inbox, interval=timedelta(hours=1)), 3) as ctx:
        await ctx.until("imap.watching")
        while len(ctx.events) < 3:  # this one reports mail only if it came after IDLE began
            inbox.put()
            await anyio.wait_all_tasks_blocked()
    assert ctx.seen["sleep"] == 0


async def test_server_without_idle_is_asked_again_and_again_also_after_it_was_away():
    inbox = Inbox(free_port())
    async with beside(mails(inbox, interval=timedelta(hours=1))) as ctx:
        await ctx.until("trigger.server_away", 2)
        with imap_server(inbox.port, idle=False):
            await ctx.until("imap.watching")
            await ctx.until("sleep", ctx.seen["sleep"] + 2)
            with inbox:
                inbox.put()
            await ctx.until("fired")
    assert len(ctx.events) == 1


async def test_only_mail_since_the_wait_began_and_that_matches_fires(inbox):
    inbox.put(subject="report: old", when=NOON - timedelta(hours=1))
    inbox.put(subject="other", when=NOON + timedelta(hours=1))
    inbox.put(subject="Report 1", when=NOON + timedelta(hours=2))
    inbox.put(subject="report 2", sender="b@example.com", when=NOON + timedelta(hours=3))
    inbox.put(subject="report 3", when=NOON + timedelta(hours=4))
    trigger = mails(inbox, subject="REPORT", sender="ann@")
    found = await fired(trigger, 2, clock=at_noon())
    assert [event.payload["subject"] for event in found] == ["Report 1", "report 3"]
    assert found[0].time == NOON + timedelta(hours=2)


async def test_it_goes_on_from_the_position(inbox):
    for number in range(3):
        inbox.put(subject=str(number), when=NOON)
    (first,) = await fired(mails(inbox), clock=at_noon())
    position = msgspec.json.decode(msgspec.json.encode(first.position))
    later = JumpingClock(NOON + timedelta(days=30))
    found = await fired(mails(inbox), 2, clock=later, position=position)
    assert [event.payload["subject"] for event in found] == ["1", "2"]


async def test_folder_that_was_numbered_anew_is_read_by_time(inbox):
    inbox.put(subject="seen", when=NOON)
    (seen,) = await fired(mails(inbox), clock=at_noon())
    inbox.begin_anew()
    inbox.put(subject="seen", when=NOON)
    inbox.put(subject="new", when=NOON + timedelta(minutes=1))
    (new,) = await fired(mails(inbox), clock=at_noon(), position=seen.position)
    assert new.payload["subject"] == "new"
    assert new.position["validity"] != seen.position["validity"]


async def test_mail_of_another_kind_is_read_too(inbox):
    html = b'Content-Type: text/html; charset="utf-8"\r\n\r\n<p>hi</p>'
    inbox.put_bytes(b"Subject: html\r\n" + html)
    inbox.put_bytes(b"Subject: odd\r\nContent-Type: text/plain; charset=nobody\r\n\r\nhi")
    inbox.put(subject="long", text="x" * 40_000)
    found = await fired(mails(inbox), 3, clock=at_noon())
    texts = [event.payload["text"] for event in found]
    assert texts[:2] == ["<p>hi</p>", "hi"]
    assert len(texts[2]) == 16_000


async def test_wrong_password_and_missing_folder_fail(inbox, monkeypatch):
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)
    with pytest.raises(TriggerError, match="refuses: NO"):
        await fired(mails(inbox, password="wrong"))
    with pytest.raises(TriggerError, match="refuses: NO"):
        await fired(mails(inbox, password="env:MAIL_PASSWORD", folder="None"))
    with pytest.raises(TriggerError, match="'NO_PASSWORD' is not set"):
        await fired(mails(inbox, password="env:NO_PASSWORD"))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"host": ""}, "host is empty"),
        ({"port": 70_000}, "70000 is not a port"),
        ({"folder": "Wysłane"}, "modified UTF-7"),
        ({"interval": timedelta(0)}, "interval must be"),
    ],
)
def test_impossible_fields_are_refused(fields, text):
    with pytest.raises(DefinitionError, match=text):
        mails(Inbox(1), **fields)
