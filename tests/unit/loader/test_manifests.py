"""A manifest stands for its folder alone, as it was, and what is not a manifest is refused."""

import os
import shutil
from datetime import UTC, datetime

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow import Cron, Dataset, Timetable, dag, task
from pubsubflow.errors import ConfigError
from pubsubflow.loader.compiled import comparing, restoring, variables
from pubsubflow.loader.compiled.building import compile_imports
from pubsubflow.loader.compiled.environment import python_version
from pubsubflow.loader.evidence import Evidence
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.messages import ImportResult
from pubsubflow.loader.once import ImportedFolder
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.loader.snapshot import SnapshotReader
from pubsubflow.model.source.compiled import MOST_BYTES, read_compiled, write_compiled
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import LoadedFile
from pubsubflow.model.values.variables import make_variable
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.webhooks import Basic, Secret, Webhook

SETTINGS = LoaderSettings()
NAMES = ("a.json", "a.msgpack")


class Years(Timetable):
    def __repr__(self):
        return "Years()"

    def next_after(self, moment):
        return datetime(moment.year + 1, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "dags"
    for name in ("etl.py", "helper.py", "data/rows.csv", "team/.pubsubflowbundle", "team/own.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return root


@pytest.fixture
def compiled(folder, tmp_path):
    """Return the manifest of the folder, whose files define what is given."""

    def compiled(**imports):
        cache = BundleCache(tmp_path / "cache")
        snapshot = SnapshotReader(Folder(folder), cache, SETTINGS).read()
        made = {}
        for file in snapshot.files:
            given = imports.get(file.removesuffix(".py"), {})
            bundle = snapshot.bundle_of(file).hash
            loaded = LoadedFile(file, bundle, **given.pop("loaded", {}))
            made[file] = ImportResult(loaded, (file,), evidence=Evidence(), **given)
        found = ImportedFolder(snapshot, made)
        return compile_imports(found, found.files())

    return compiled


def differences(manifest, root):
    return [*comparing.folder_differences(manifest, Folder(root), SETTINGS)]


def rich_dag(**options):
    @dag(schedule=Cron("0 16 * * *", tz="Europe/Warsaw") & Dataset("s3://lake/a"), **options)
    def etl():
        @task(retries=3, outlets=[Dataset("s3://lake/b")])
        def load(rows: list[int]) -> int:
            return len(rows)

        load([1, 2])

    return etl().to_spec("etl.py", "0" * 64)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_makes_the_version_that_an_import_makes(compiled, tmp_path, name):
    spec = rich_dag(
        params={"z": 1.0, "a": [1, {"b": None}]}, start=datetime(2026, 1, 1, tzinfo=UTC)
    )
    manifest = compiled(etl={"loaded": {"dags": (spec,), "warnings": ("mind it",)}})
    write_compiled(manifest, tmp_path / name)
    read = read_compiled(tmp_path / name)
    found = anyio.run(restoring.compiled_imports, read, "key", none_set)["etl.py"].result.loaded
    expected = msgspec.structs.replace(spec, source=found.source)
    assert [STORED_SPEC.encode(each) for each in found.dags] == [STORED_SPEC.encode(expected)]
    assert (found.warnings, found.bundle) == (("mind it",), manifest.files["etl.py"].bundle)


async def none_set(_names):
    return {}


def test_the_folder_as_it_was_differs_in_nothing_wherever_it_lies(compiled, folder, tmp_path):
    manifest = compiled()
    assert [file.base for file in manifest.bundles.values()] == ["", "team"]
    assert differences(manifest, folder) == []
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    os.utime(elsewhere / "etl.py", (1, 1))
    assert differences(manifest, elsewhere) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: (root / "helper.py").write_text("# other"), ["helper.py has changed"]),
        (lambda root: (root / "helper.py").write_text("# Helper.py\n"), ["helper.py has changed"]),
        (lambda root: (root / "data/rows.csv").unlink(), ["data/rows.csv is gone"]),
        (lambda root: (root / "new.py").write_text(""), ["new.py is new"]),
        (lambda root: (root / "etl.py").chmod(0o755), ["etl.py is executable here"]),
        (
            lambda root: (root / "team/.pubsubflowbundle").unlink(),
            ["team is not a bundle of its own here"],
        ),
        (
            lambda root: (root / "data/.pubsubflowbundle").touch(),
            ["data is a bundle of its own here"],
        ),
        (lambda root: (root / ".hidden").touch(), []),
    ],
)
def test_what_differs_is_named(compiled, folder, change, says):
    manifest = compiled()
    change(folder)
    assert differences(manifest, folder) == says


def test_a_manifest_that_is_out_of_date_is_refused_in_one_line(compiled, folder, tmp_path):
    path = tmp_path / "dags.json"
    manifest = compiled()
    environment = msgspec.structs.replace(
        manifest.environment, python="2.7", packages={"pubsubflow": "0.0.1", "no-such": "1"}
    )
    write_compiled(msgspec.structs.replace(manifest, environment=environment), path)
    for number in range(9):
        (folder / f"new_{number}.py").touch()
    with pytest.raises(ConfigError) as refused:
        comparing.read_manifest(path, folder, SETTINGS)
    text = str(refused.value)
    for part in (f"Python 2.7 is {python_version()} here", "no-such 1 is missing here"):
        assert part in text
    assert "new_0.py is new" in text
    assert "(and 4 more); compile the folder again" in text


def test_one_file_of_the_folder_has_another_manifest(compiled, folder):
    found = differences(compiled(), folder / "etl.py")
    assert found == ["helper.py is not a DAG file here", "team/own.py is not a DAG file here"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_manifest_is_refused(compiled, folder, tmp_path, name):
    path = tmp_path / name
    manifest = compiled(etl={"loaded": {"dags": (rich_dag(),)}})
    entry = manifest.files["etl.py"]
    spec = msgspec.structs.replace(entry.dags["etl"], file="helper.py")
    wrong_file = msgspec.structs.replace(entry, dags={"etl": spec})
    wrong_name = msgspec.structs.replace(entry, dags={"other": entry.dags["etl"]})
    nowhere = msgspec.structs.replace(entry, bundle="0" * 32)
    for each in (wrong_file, wrong_name, nowhere):
        files = manifest.files | {"etl.py": each}
        write_compiled(msgspec.structs.replace(manifest, files=files), path)
        with pytest.raises(ConfigError, match=r"contradicts itself at etl\.py"):
            comparing.read_manifest(path, folder, SETTINGS)
    bundles = dict(zip(manifest.bundles, reversed(manifest.bundles.values()), strict=True))
    write_compiled(msgspec.structs.replace(manifest, bundles=bundles), path)
    with pytest.raises(ConfigError, match="contradicts itself at bundle"):
        comparing.read_manifest(path, folder, SETTINGS)
    write_compiled(msgspec.structs.replace(manifest, format=1), path)
    with pytest.raises(ConfigError, match="has format 1, and this version reads 2"):
        read_compiled(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_compiled(tmp_path / "none.json")
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ConfigError, match="bytes: it is none"):
        read_compiled(path)


@given(st.sampled_from(NAMES), st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_are_read_or_refused(tmp_path_factory, name, noise, cut):
    path = tmp_path_factory.getbasetemp() / name
    deep = b'{"format":2,"files":' + b"[" * 100_000
    for data in (noise, b'{"format":2,"environment":{"python":"3","packages":{}}}'[:cut], deep):
        path.write_bytes(data)
        with pytest.raises(ConfigError):
            read_compiled(path)


def test_a_file_counts_while_its_variables_have_the_values_that_they_had(compiled):
    used = {"lake": ("s3://lake",), "region": ()}
    manifest = compiled(etl={"variables": used, "loaded": {"dags": (rich_dag(),)}})
    assert "s3://lake" not in msgspec.json.encode(manifest.files["etl.py"].variables).decode()

    def imported(**values):
        async def read(names):
            assert names == ["lake", "region"]
            return {each.name: each for each in values.values()}

        found = anyio.run(restoring.compiled_imports, manifest, "key", read)
        return found["etl.py"].result.loaded.dags[0].variables if "etl.py" in found else None

    lake = make_variable("lake", "s3://lake")
    assert imported(lake=lake) == used
    assert imported() is None
    assert imported(lake=make_variable("lake", "s3://other")) is None
    assert imported(lake=lake, region=make_variable("region", "eu")) is None
    assert imported(lake=lake, region=make_variable("region", None, secret=True)) is None


def test_equal_values_of_two_variables_have_two_digests():
    digests = {variables.digest_of_variable(*each) for each in [("a", (1,)), ("b", (1,))]}
    assert len(digests) == 2
    assert variables.digest_of_variable("a", ()) == ""
    assert variables.digest_of_variable("a", (None,)) != ""


def test_what_is_of_a_moment_or_secret_is_not_written_and_imported_at_each_start(compiled):
    by_name = Webhook("a", dataset=Dataset("s3://a"), verify=Basic("me", Secret("PASSWORD")))
    as_text = Webhook("b", dataset=Dataset("s3://a"), verify=Basic("me", "hunter2"))

    @dag(schedule=Years())
    def timed():
        @task
        def load() -> None: ...

        load()

    spec = timed().with_ticks(timed().to_spec("own.py", ""), datetime.now(UTC))
    hooks = (by_name.to_spec(), as_text.to_spec())
    manifest = compiled(
        etl={"loaded": {"hooks": hooks}},
        helper={"loaded": {"hooks": ()}},
        **{"team/own": {"loaded": {"dags": (msgspec.structs.replace(spec, file="team/own.py"),)}}},
    )
    assert manifest.files["etl.py"].hooks == {"a": by_name.to_spec(), "b": None}
    assert "renew_at" not in msgspec.json.encode(manifest).decode()
    found = anyio.run(restoring.compiled_imports, manifest, "key", none_set)
    assert {*found} == {"helper.py"}
