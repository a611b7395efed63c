"""Verifiers of plugins: their serialised form, and what goes wrong in them refuses the request."""

import threading
from importlib import import_module

import anyio
import msgspec
import pytest

from pubsubflow.errors import DefinitionError
from pubsubflow.model.webhooks import WebhookSpec
from pubsubflow.webhooks import NotVerified, PluginVerifier, Secret, Webhook, WebhookRequest
from pubsubflow.webhooks.plugin_check import PluginCheck, plugin_check
from support.plugin_distribution import SIGNING, VERIFIERS, distribution

pytestmark = pytest.mark.anyio


@pytest.fixture
def acme(tmp_path, monkeypatch):
    with distribution(tmp_path, monkeypatch, VERIFIERS, acme_signing=SIGNING):
        yield import_module("acme_signing")


def signed(value, header="x-acme"):
    return WebhookRequest(((header, value),), b"{}")


def stored(verify):
    spec = Webhook("acme", dataset="acme://events", verify=verify).to_spec()
    return msgspec.json.decode(msgspec.json.encode(spec), type=WebhookSpec).verify


async def test_it_verifies_with_the_fields_and_secrets_of_its_declaration(acme):
    spec = stored(acme.AcmeSigned(secret=[Secret("ACME"), "old"], header="x-sign"))
    assert (spec.name, spec.fields, spec.secrets()) == (
        "acme",
        {"header": "x-sign"},
        (Secret("ACME"), "old"),
    )
    assert "old" not in repr(spec)
    check = await plugin_check(spec, ("new", "old"))
    await check.verify(signed(b"new", "x-sign"), 0.0)
    await check.verify(signed(b"old", "x-sign"), 0.0)
    with pytest.raises(NotVerified, match="x-sign is missing"):
        await check.verify(signed(b"new"), 0.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"bad", "does not prove its origin"),
        (b"yes", "does not prove its origin"),
        (b"why", "write to Acme"),
        (b"exit", "the verifier acme failed; the server's log says why"),
    ],
)
async def test_all_but_true_refuses(acme, value, text):
    check = await plugin_check(stored(acme.AcmeSigned(secret="s")), ("s",))
    with pytest.raises(NotVerified, match=text):
        await check.verify(signed(value), 0.0)


async def test_one_that_does_not_return_refuses_and_takes_four_threads_at_most():
    entered, leave = [], threading.Event()

    class Hangs(PluginVerifier, frozen=True):
        def verify(self, *given):
            entered.append(given)
            leave.wait(10)
            return True

    check = PluginCheck("hangs", Hangs(), (), seconds=0.1)

    async def refused():
        with pytest.raises(NotVerified, match="hangs failed"):
            await check.verify(signed(b""), 0.0)

    await refused()  # occupies one of the threads for those that follow
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(refused)
    await refused()
    assert len(entered) == 4
    leave.set()
    while check._threads.stuck:  # noqa: ASYNC110 - threads give no signal
        await anyio.sleep(0.001)
    await check.verify(signed(b""), 0.0)


async def test_what_cannot_be_imported_is_named(acme):
    with pytest.raises(DefinitionError, match=r"Unregistered is not registered.*\.verifiers"):
        stored(acme.Unregistered())
    spec = stored(acme.AcmeSigned(secret="s"))
    for name, text in (
        ("broken", "cannot be imported"),
        ("other", "not a subclass of PluginVerifier"),
        ("gone", "no verifier 'gone' is installed here"),
    ):
        with pytest.raises(DefinitionError, match=text):
            await plugin_check(msgspec.structs.replace(spec, name=name), ("s",))
    newer = msgspec.structs.replace(spec, fields={"header": 3})
    with pytest.raises(DefinitionError, match="cannot decode its fields"):
        await plugin_check(newer, ("s",))
    with pytest.raises(DefinitionError, match="a secret is empty"):
        await plugin_check(spec, ("",))
