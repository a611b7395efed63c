"""Webhooks in DAG files, as the loader takes them."""

import msgspec
import pytest

from pubsubflow import Dataset
from pubsubflow.errors import DefinitionError
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.ownership import resolve_owners
from pubsubflow.model.spec import LoadedFile
from pubsubflow.model.webhooks import Secret, WebhookSpec
from pubsubflow.webhooks import GitHub, Hmac, Unverified, Webhook
from pubsubflow.webhooks.secrets import EnvironmentSecrets, look_up
from support.bundles import execute

HEAD = "from pubsubflow import *\nfrom pubsubflow.webhooks import *\nd = Dataset('s3://lake/d')\n"


def run(text, folder):
    return execute(folder, {"f.py": HEAD + text}, "f.py")


def test_a_file_has_the_webhooks_that_it_makes(tmp_path):
    collected = run(
        "for name in ('a', 'b'):\n"
        "    Webhook(name, dataset=d, verify=GitHub([Secret('NEW'), 'old']), when='body.x == 1')",
        tmp_path,
    )
    assert list(collected.hooks) == ["a", "b"]
    spec = collected.hooks["b"].to_spec()
    assert (spec.dataset, spec.when, spec.line) == ("s3://lake/d", "body.x == 1", 5)
    data = msgspec.msgpack.encode(spec)
    assert msgspec.msgpack.decode(data, type=WebhookSpec).verify == GitHub([Secret("NEW"), "old"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Webhook('a', dataset=d, verify=None)", "verify takes a verifier"),
        ("Webhook('a b', dataset=d, verify=Unverified())", "a name has letters"),
        ("Webhook('a', dataset='x', verify=Unverified())", "needs a scheme"),
        ("Webhook('a', dataset=d, verify=Unverified(), when='body.')", "is not a CEL expression"),
        ("Webhook('a', dataset=d, verify=Unverified(), id='bdy.x')", "uses 'bdy'"),
        ("Webhook('a', dataset=d, verify=Unverified(), extra={'x': 3})", r"extra\['x'\] takes"),
        ("Webhook('a', dataset=d, verify=Unverified(), extra='x')", "extra is a dict"),
        ("[Webhook('a', dataset=d, verify=Unverified()) for _ in 'xy']", "already at .*f.py:4"),
    ],
)
def test_mistakes_name_their_place(tmp_path, text, says):
    with pytest.raises(DefinitionError, match=says) as caught:
        run(text, tmp_path)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "f.py"), 4)


def test_a_dataset_or_its_uri_will_do():
    for dataset in (Dataset("s3://lake/d"), "s3://LAKE/d/"):
        assert Webhook("a", dataset=dataset, verify=Unverified()).to_spec().dataset == "s3://lake/d"


def imported(file, *names, **foreign):
    hooks = tuple(WebhookSpec(name, "s3://lake/d", Unverified()) for name in names)
    return ImportResult(LoadedFile(file, hooks=hooks), (), {}, foreign)


def test_a_webhook_belongs_to_one_file():
    resolved = resolve_owners({file: imported(file, "a", file[0]) for file in ("x.py", "y.py")})
    assert [hook.name for hook in resolved["x.py"].hooks] == ["a", "x"]
    assert resolved["y.py"].hooks == ()
    assert resolved["y.py"].error == (
        "y.py: webhook 'a' is defined by x.py too; give one of them another name"
    )


def test_a_webhook_of_an_imported_file_belongs_to_that_one():
    resolved = resolve_owners(
        {"x.py": imported("x.py", "a", a="y.py"), "y.py": imported("y.py", "a")}
    )
    assert resolved["x.py"].hooks == ()
    assert [hook.name for hook in resolved["y.py"].hooks] == ["a"]
    assert resolved["x.py"].error is None


def test_a_secrets_name_is_one_of_a_variable():
    with pytest.raises(DefinitionError, match="letters, digits"):
        Secret("no name")


@pytest.mark.anyio
async def test_secrets_are_looked_up_in_the_environment():
    source = EnvironmentSecrets({"PUBSUBFLOW_SECRET_A": "a1\n", "A": "a2", "B": "b", "C": ""})
    requested = Hmac([Secret("A"), "plain", Secret("B"), Secret("C")], header="X").secrets()
    found = await look_up(requested, source)
    assert found.secrets == ("a1", "plain", "b")
    assert found.missing == ("the secret C is not known to this daemon",)
