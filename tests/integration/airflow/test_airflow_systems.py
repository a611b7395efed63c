"""Files with which Airflow's providers are tested against their services load here, unchanged.

The services are not there: nothing is run. What differs between releases is which libraries a file
needs, so each that is refused stands in `systems/refused.txt`, with the reason.
"""

import shutil
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from pubsubflow.airflow.outside.check import check_folder
from pubsubflow.airflow.outside.interpreter import probe
from support.airflow import systems_python
from tools import airflow_systems

pytestmark = pytest.mark.soak
TABLE = Path(__file__).with_name("systems") / "refused.txt"
LEAST_SHARE = 374 / 395
SECONDS = 900.0
# What the files share with other tests of Airflow's repository, which is in no distribution.
STAND_INS = {
    "api_client_helpers": "make_authenticated_rest_api_request = create_airflow_connection = None",
    "compat": "from airflow.providers.standard.operators.empty import EmptyOperator",
    "config": "from contextlib import nullcontext as conf_vars",
    "system_tests": """
def get_test_run(dag, **_):
    return None


def get_test_env_id(env_var_name=""):
    return "env"
""",
    "version_compat": "AIRFLOW_V_3_0_PLUS = AIRFLOW_V_3_1_PLUS = AIRFLOW_V_3_2_PLUS = True",
    "watcher": """
from airflow.sdk import task


@task(trigger_rule="one_failed", retries=0)
def watcher():
    raise RuntimeError("a task has failed")
""",
}
# Clients of clouds look for the machine that they run on: none is asked for it here.
ENVIRONMENT = {
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(SECONDS),
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_GCE_CHECK": "true",
    "SYSTEM_TESTS_ENV_ID": "env",
    "SYSTEM_TESTS_GCP_PROJECT": "shop",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    fetched = airflow_systems.fetched()
    if fetched is None:
        pytest.skip("the files are not there: `make airflow` and `make soak` fetch them")
    made = tmp_path_factory.mktemp("systems") / "dags"
    for name in airflow_systems.PROVIDERS:
        shutil.copytree(fetched / name, made, dirs_exist_ok=True)
    common = made / "tests_common" / "test_utils"
    common.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (common / f"{name}.py").write_text(text + "\n")
    return made


@pytest.fixture(scope="module")
def report(folder):
    python = systems_python()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        found = check_folder(folder, probe(python), home=folder.parent / "home", seconds=SECONDS)
    kept = folder.parent / "report.json"
    kept.write_bytes(msgspec.json.encode(found))
    return found


def examples(report, folder):
    """Return the files that are to make DAGs: provider → reports."""
    owners = {}
    for name in airflow_systems.PROVIDERS:
        for file in (airflow_systems.fetched() / name).rglob("example_*.py"):
            owners[str(file.relative_to(airflow_systems.fetched() / name))] = name
    found = {file.file: file for file in report.files}
    return [(owners[name], found[name]) for name in sorted(owners)]


def test_all_load_but_those_of_the_table(report, folder):
    all_files, loaded, refused = Counter(), Counter(), {}
    for provider, file in examples(report, folder):
        all_files[provider] += 1
        # Tasks may request what a file's own notes say; here it is loading that counts.
        if file.errors or not file.dags:
            refused[file.file] = str(file.errors[0]) if file.errors else "no DAGs"
        else:
            loaded[provider] += 1
    for provider, number in sorted(all_files.items()):
        print("PROVIDER", provider, loaded[provider], "of", number)
    for name, reason in refused.items():
        print("REFUSED", name, "|", reason[:300])
    print("LOADED", loaded.total(), "of", all_files.total())
    assert loaded.total() / all_files.total() >= LEAST_SHARE
    table = [line.split("|") for line in TABLE.read_text().splitlines() if line[:1] != "#"]
    assert refused.keys() == {name.strip() for name, *_ in table}
