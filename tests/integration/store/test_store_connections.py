"""Connections in Postgres: encrypted, bound to their rows, and lost with their key alone."""

import msgspec
import pytest

from pubsubflow.errors import ConfigError, InvalidInput, NotFound, StaleRevision
from pubsubflow.model.connections import MASK, make_connection
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.encryption import DecryptionError
from pubsubflow.store.secrets.keyring import Keyring

pytestmark = pytest.mark.anyio

URI = "postgres://ann@db:5432/sales"
THEFT = """
UPDATE connection SET ciphertext = (SELECT ciphertext FROM connection WHERE name = 'z')
WHERE name = 'crm'
"""


def crm(token="hush-hush", **more):
    return make_connection("crm", **{"uri": "https://crm/", "secrets": {"token": token}, **more})


@pytest.fixture
def key_file(tmp_path):
    return Keyring(tmp_path / "home" / "keys")


@pytest.fixture
def connections(database, key_file):
    return Connections(database, key_file)


async def rows(database, what="*"):
    async with database.connection() as postgres:
        return await postgres.fetch(f"SELECT {what} FROM connection ORDER BY name")


async def test_secrets_come_back_and_are_stored_encrypted(connections, database, key_file):
    wanted = make_connection(
        "db", uri=URI, extra={"n": 1.0, "ü": [1e300]}, secrets={"password": "hush-hush"}
    )
    saved = await connections.save(wanted)
    assert saved.created
    assert saved.view.secrets == {"password": MASK}
    assert await connections.read("db") == wanted
    (row,) = await rows(database, "connection::text AS all, ciphertext")
    assert "hush" not in row["all"]
    assert b"hush" not in row["ciphertext"]
    assert key_file.path.stat().st_mode & 0o777 == 0o600
    assert [view.secrets for view in await connections.list("", 5)] == [{"password": MASK}]


async def test_a_connection_without_secrets_needs_no_key(connections, key_file):
    await connections.save(make_connection("open", uri="https://x/"))
    assert (await connections.read("open")).url == "https://x/"
    assert not key_file.path.exists()


async def test_a_mask_keeps_what_is_stored(connections):
    await connections.save(crm(secrets={"token": "one", "other": "two"}))
    saved = await connections.save(crm(secrets={"token": MASK, "new": "three"}, uri="https://b/"))
    assert not saved.created
    found = await connections.read("crm")
    assert (found.secrets, found.uri) == ({"token": "one", "new": "three"}, "https://b/")
    with pytest.raises(InvalidInput, match="no secret 'nope' that"):
        await connections.save(crm(secrets={"nope": MASK}))


async def test_a_change_depends_on_the_revision_that_it_was_made_for(connections):
    first = (await connections.save(crm("one"), ["absent"])).view.revision
    with pytest.raises(StaleRevision, match=f"'crm' has changed.*{first}"):
        await connections.save(crm("two"), ["absent"])
    second = (await connections.save(crm("two"), [first])).view.revision
    with pytest.raises(StaleRevision):
        await connections.delete("crm", [first])
    await connections.delete("crm", [first, second])
    with pytest.raises(NotFound):
        await connections.read("crm")
    with pytest.raises(StaleRevision, match="absent"):
        await connections.save(crm(), [second])
    assert (await connections.save(crm())).view.revision not in (first, second)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE connection SET uri = 'https://thief/'",
        "UPDATE connection SET name = 'other'",
        """UPDATE connection SET extra = '{"host": "thief"}'""",
        "UPDATE connection SET kind = 'x'",
        "UPDATE connection SET ciphertext = ciphertext || 'x'",
        (
            "UPDATE connection"
            " SET ciphertext = set_byte(ciphertext, 20, 255 - get_byte(ciphertext, 20))"
        ),
        "UPDATE connection SET ciphertext = set_byte(ciphertext, 1, 255 - get_byte(ciphertext, 1))",
        THEFT,
    ],
)
async def test_secrets_belong_to_their_row_alone(connections, database, change):
    await connections.save(crm())
    if "'z'" in change:
        await connections.save(make_connection("z", uri="https://crm/", secrets={"token": "z"}))
    async with database.connection() as postgres:
        await postgres.execute(change)
    name = "other" if "name = 'other'" in change else "crm"
    with pytest.raises(DecryptionError, match=f"'{name}' do not belong to its row.*set it again"):
        await connections.read(name)


async def test_a_lost_key_is_told_by_the_connection_that_needs_it(connections, key_file):
    await connections.save(crm())
    await connections.save(make_connection("open", uri="https://x/"))
    kept = key_file.path.rename(key_file.path.with_name("elsewhere"))
    with pytest.raises(DecryptionError, match=r"'crm' .* is not there: bring that key back"):
        await connections.read("crm")
    with pytest.raises(DecryptionError, match=r"'crm'.*before connection 'b' is set"):
        await connections.save(make_connection("b", secrets={"token": "x"}))
    assert not key_file.path.exists()
    await key_file.write(await Keyring(kept).read())
    assert (await connections.read("crm")).secret() == "hush-hush"


async def test_a_wrong_key_is_told_and_changes_nothing(connections, database, key_file, tmp_path):
    await connections.save(crm())
    right = await key_file.read()
    other = Connections(database, Keyring(tmp_path / "other"))
    with pytest.raises(DecryptionError, match=r"'crm'.*other: bring that key back"):
        await other.save(make_connection("b", secrets={"token": "x"}))
    key_file.path.write_text("psfkey_" + "A" * 43 + "=\n")
    wrong = key_file.path.read_bytes()
    before = await rows(database)
    for act in (connections.read("crm"), connections.rotate()):
        with pytest.raises(DecryptionError, match=r"'crm' is encrypted with key .* has only"):
            await act
    assert (await rows(database), key_file.path.read_bytes()) == (before, wrong)
    # A key that came back as a further line decrypts; setting and deleting work without it too.
    await connections.save(crm("new"))
    assert (await connections.read("crm")).secret() == "new"
    await key_file.write((*await key_file.read(), *right))
    await connections.rotate()
    assert (await connections.read("crm")).secret() == "new"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
async def test_a_key_file_that_others_can_read_is_refused(connections, key_file, mode):
    await connections.save(crm())
    key_file.path.chmod(mode)
    with pytest.raises(ConfigError, match=f"read by others .mode {mode:o}.: run chmod 600"):
        await connections.read("crm")


@pytest.mark.parametrize("text", ["psfkey_AAAA\n", "hush", "psfkey_\n", "\xff"])
async def test_a_damaged_key_file_is_told_by_its_line(connections, key_file, text):
    await connections.save(crm())
    key_file.path.write_text(f"# fine\n\n{text}", encoding="latin-1")
    with pytest.raises(ConfigError, match=r"line 3 .* is not a key|cannot be read") as caught:
        await connections.read("crm")
    assert "hush" not in str(caught.value)


async def test_a_rotation_leaves_one_key_and_every_secret(connections, database, key_file):
    names = [f"c{n}" for n in range(5)]
    for name in names:
        await connections.save(make_connection(name, secrets={"token": f"secret of {name}"}))
    await connections.save(make_connection("open", uri="https://x/"))
    (before,) = await key_file.read()
    versions = await rows(database, "name, version")
    done = await connections.rotate()
    (after,) = await key_file.read()
    assert (done.connections, done.key) == (5, after.id)
    assert after.id != before.id
    assert {row["key_id"] for row in await rows(database, "key_id")} == {after.id, None}
    assert [(await connections.read(name)).secret() for name in names] == [
        f"secret of {name}" for name in names
    ]
    assert await rows(database, "name, version") == versions  # no ETag has changed
    assert [path.name for path in key_file.path.parent.iterdir()] == ["keys"]


async def test_databases_that_share_a_key_file_do_not_take_each_others_keys(
    connections, database, key_file
):
    """As do `up` and a daemon on a Postgres of its own that have one home."""
    await connections.save(crm("first"))
    theirs = await rows(database)
    ours = await key_file.read()
    async with database.connection() as postgres:  # from now on it is another database
        await postgres.execute("DELETE FROM connection; DELETE FROM connection_vault")
    await connections.save(crm("second"))
    await connections.rotate()
    kept = await key_file.read()
    assert (len(kept), kept[-1]) == (2, ours[0])
    assert (await connections.read("crm")).secret() == "second"
    async with database.connection() as postgres:
        await postgres.execute(
            "UPDATE connection SET key_id = $1, ciphertext = $2",
            theirs[0]["key_id"],
            theirs[0]["ciphertext"],
        )
    assert (await connections.read("crm")).secret() == "first"


async def test_a_key_that_somebody_provides_encrypts(connections, key_file):
    key_file.path.parent.mkdir()
    key_file.path.touch(mode=0o600)
    key_file.path.write_text("# ours\npsfkey_" + "A" * 43 + "=\n")
    await connections.save(crm())
    (given,) = await key_file.read()
    assert {row["key_id"] for row in await rows(connections._database, "key_id")} == {given.id}
    await connections.rotate()
    assert given in await key_file.read()  # others may need it: who gave it takes it away
    assert (await connections.read("crm")).secret() == "hush-hush"


async def test_a_key_that_an_unfinished_rotation_left_goes_with_the_next(connections, key_file):
    await connections.save(crm())
    keys = await key_file.read()
    key_file.path.with_name("keys.new").write_text("half a fi")
    async with connections._database.transaction():
        spare = msgspec.structs.replace(keys[0], data=bytes(32))
        await key_file.write((spare, *keys))
    assert (await connections.read("crm")).secret() == "hush-hush"
    await connections.save(make_connection("b", secrets={"token": "x"}))
    assert {row["key_id"] for row in await rows(connections._database, "key_id")} == {
        spare.id,
        keys[0].id,
    }
    await connections.rotate()
    assert len(await key_file.read()) == 1
    assert (await connections.read("b")).secret() == "x"


async def test_the_dags_of_a_connection_are_bound_to_its_secrets(connections, database):
    await connections.save(crm(dags=["etl_*"]))
    await connections.rotate()
    assert (await connections.read_for("crm", "etl_daily")).dags == ("etl_*",)
    for user in ("report", None):
        with pytest.raises(ConfigError, match="'crm' is for DAGs"):
            await connections.read_for("crm", user)
    saved = await connections.save(crm("new"), keep_dags=True)
    assert saved.view.dags == ["etl_*"]
    async with database.connection() as postgres:
        await postgres.execute("UPDATE connection SET dags = '{}'")
    for act in (connections.read("crm"), connections.save(crm("newer"), keep_dags=True)):
        with pytest.raises(DecryptionError, match="do not belong to its row"):
            await act
    assert (await connections.save(crm("newer", dags=["*"]))).view.dags == []
    assert (await connections.read_for("crm", "report")).secret() == "newer"
