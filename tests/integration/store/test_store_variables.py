"""Variables in Postgres: values as they were given, secrets encrypted, the environment first."""

from typing import ClassVar

import pytest

from pubsubflow.errors import ConfigError, InvalidInput, NotFound, SecretsUnavailable, StaleRevision
from pubsubflow.model.connections import make_connection
from pubsubflow.model.values.variables import make_variable
from pubsubflow.secrets_backends.chain import SecretsChain
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.encryption import DecryptionError
from pubsubflow.store.secrets.keyring import Keyring
from pubsubflow.store.secrets.variables import Variables

pytestmark = pytest.mark.anyio


@pytest.fixture
def keyring(tmp_path):
    return Keyring(tmp_path / "home" / "keys")


@pytest.fixture
def environment():
    return {}


@pytest.fixture
def variables(database, keyring, environment):
    return Variables(database, keyring, environment)


@pytest.mark.parametrize("value", ["text", 1, 1.5, True, None, ["a", {"b": []}], {}, ""])
async def test_a_value_comes_back_as_it_was_given(variables, keyring, value):
    assert (await variables.save(make_variable("x", value))).created
    assert (await variables.read("x")).value == value
    assert (await variables.view("x")).value == value
    assert not keyring.path.exists()


async def test_a_secret_is_encrypted_masked_and_kept(variables, database):
    saved = await variables.save(make_variable("crm_token", ["hush-hush"], description="of crm"))
    assert (saved.view.value, saved.view.secret) == ("***", True)
    async with database.connection() as postgres:
        row = await postgres.fetchrow("SELECT variable::text AS all, ciphertext FROM variable")
    assert "hush" not in row["all"]
    assert b"hush" not in row["ciphertext"]
    await variables.save(make_variable("crm_token", "***", description="still"))
    found = await variables.read("crm_token")
    assert (found.value, found.description) == (["hush-hush"], "still")
    assert found.redacted_values() == {"hush-hush"}
    assert "hush" not in repr(found)


async def test_rotation_takes_variables_along(variables, database, keyring):
    await variables.save(make_variable("a_token", "hush-hush"))
    connections = Connections(database, keyring)
    await connections.save(make_connection("crm", secrets={"token": "t0ken"}))
    done = await connections.rotate()
    assert (done.connections, done.variables, len(await keyring.read())) == (1, 1, 1)
    assert (await variables.read("a_token")).value == "hush-hush"
    assert (await connections.read("crm")).secrets == {"token": "t0ken"}


async def test_a_ciphertext_belongs_to_its_row(variables, database):
    await variables.save(make_variable("a_token", "one"))
    await variables.save(make_variable("b_token", "two"))
    async with database.connection() as postgres:
        await postgres.execute(
            "UPDATE variable SET ciphertext = (SELECT ciphertext FROM variable WHERE name = "
            "'b_token') WHERE name = 'a_token'"
        )
    with pytest.raises(DecryptionError, match="secrets of variable 'a_token' do not belong"):
        await variables.read("a_token")


async def test_a_lost_key_names_the_variable(variables, keyring):
    await variables.save(make_variable("a_token", "one"))
    keyring.path.rename(keyring.path.with_name("elsewhere"))
    with pytest.raises(ConfigError, match="variable 'a_token' is encrypted with key"):
        await variables.read("a_token")
    with pytest.raises(ConfigError, match=r"variable 'a_token' .* before variable 'b_token'"):
        await variables.save(make_variable("b_token", "two"))


async def test_the_environment_comes_first_and_is_never_stored(variables, environment):
    await variables.save(make_variable("my-limit", 3))
    environment |= {"PUBSUBFLOW_VAR_MY_LIMIT": "4", "PUBSUBFLOW_VAR_A_TOKEN": "hush"}
    assert (await variables.read("my-limit")).value == 4
    assert (await variables.read("a_token")).value == "hush"
    listed = {each.name: (each.value, each.source) for each in await variables.list("", 10)}
    assert listed["my-limit"] == (4, "environment")
    assert listed["a_token"] == ("***", "environment")
    environment.clear()
    assert (await variables.view("my-limit")).value == 3
    with pytest.raises(NotFound, match="no variable named 'a_token'"):
        await variables.read("a_token")


async def test_lists_go_on_after_a_name(variables, environment):
    for name in "bdf":
        await variables.save(make_variable(name, 1))
    environment |= {"PUBSUBFLOW_VAR_A": "1", "PUBSUBFLOW_VAR_E": "1"}
    names, after = [], ""
    while found := await variables.list(after, 2):
        names += [each.name for each in found]
        after = names[-1]
    assert names == ["a", "b", "d", "e", "f"]


async def test_changes_of_another_revision_are_refused(variables):
    first = (await variables.save(make_variable("x", 1), ["absent"])).view.revision
    await variables.save(make_variable("x", 2), [first])
    with pytest.raises(StaleRevision):
        await variables.save(make_variable("x", 3), [first])
    with pytest.raises(StaleRevision):
        await variables.delete("x", [first])
    await variables.delete("x")
    with pytest.raises(NotFound):
        await variables.delete("x")


async def test_what_cannot_be_a_variable_is_refused(variables):
    with pytest.raises(InvalidInput, match="cannot name a variable"):
        make_variable("a b", 1)
    with pytest.raises(InvalidInput, match="more than 64 KiB"):
        make_variable("a", "x" * 65_536)
    with pytest.raises(InvalidInput, match="no value that"):
        await variables.save(make_variable("a_token", "***"))


async def test_secrets_backends_come_after_the_environment_and_before_the_store(
    database, keyring, environment
):
    class Backend:
        name = "one"
        held: ClassVar = {"a": '["backend"]', "b": "2", "a_token": "hush-hush"}

        async def find(self, kind, name):
            found = self.held.get(name) if kind == "variables" else None
            if isinstance(found, Exception):
                raise found
            return found

    variables = Variables(database, keyring, environment, SecretsChain([Backend()]))
    for name in ("a", "b", "c"):
        await variables.save(make_variable(name, "store"))
    environment["PUBSUBFLOW_VAR_A"] = "environment"
    read = [(await variables.read(name)).value for name in ("a", "b", "c", "a_token")]
    assert read == ["environment", 2, "store", "hush-hush"]
    plain = await variables.read_plain(["a", "b", "c", "a_token"])
    values = {name: each.value for name, each in plain.items()}
    assert values == {"a": "environment", "b": 2, "c": "store", "a_token": "***"}
    Backend.held["d"] = ConfigError("refused")
    with pytest.raises(ConfigError, match="one: refused"):
        await variables.read("d")
    # DAG files that use it are imported when the backend answers again.
    with pytest.raises(SecretsUnavailable, match="one: refused"):
        await variables.read_plain(["d"])
