"""Settings from file, environment and flags."""

import re
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

from pubsubflow.config import Config, load_config
from pubsubflow.errors import ConfigError


def load(file=None, flags=None, defaults=None, **environ):
    return load_config(file=file, environ=environ, flags=flags or {}, defaults=defaults)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.toml"

    def write(text):
        path.write_text(text)
        return path

    return write


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_flags_go_over_environment_over_file_over_defaults(file):
    path = file('home = "/file"\n[api]\nport = 1\nhost = "::1"\n[worker]\nprocesses = 7\n')
    config = load(
        path,
        {"api.port": 3, "home": None},
        {"log": {"level": "warning"}, "worker": {"processes": 1}},
        PUBSUBFLOW__API__PORT="2",
        PUBSUBFLOW__API__MAX_EVENTS="10",
    )
    assert (config.api.port, config.api.host, config.api.max_events) == (3, "::1", 10)
    assert (config.home, config.worker.processes, config.log.level) == (Path("/file"), 7, "warning")


def test_the_home_comes_from_its_own_variable_too(file):
    path = file('home = "/file"')
    assert load(path, PUBSUBFLOW_HOME="/own").home == Path("/own")
    assert load(path, PUBSUBFLOW_HOME="/own", PUBSUBFLOW__HOME="/x").home == Path("/x")
    assert load(path, {"home": Path("~/y")}, PUBSUBFLOW_HOME="/own").home.name == "y"
    assert load(HOME="/nobody").home.name == ".pubsubflow"


def test_a_list_in_the_environment_is_cut_at_commas():
    assert load(PUBSUBFLOW__WORKER__QUEUES="a, b").worker.queues == ("a", "b")
    assert load(PUBSUBFLOW__OIDC__ROLES__OPS="viewer,admin:dag=a").oidc.roles == {
        "ops": ("viewer", "admin:dag=a")
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_in_the_current_folder_is_read(tmp_path, encoding):
    (tmp_path / "pubsubflow.toml").write_text("[api]\nport = 9\n", encoding=encoding)
    assert load().api.port == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[api]\nprot = 1", "api.prot is unknown; did you mean api.port"),
        ("[nats]\nuri = 'x'", "nats.uri is unknown"),
        ("[apis]", "apis is unknown; did you mean api"),
        ("colour = 1", "colour is unknown; known are home"),
        ("[api]\nport = 'x'", "api.port is x: an integer from 0 to 65535 is expected"),
        ("[api]\nport = 70000", "api.port is 70000: an integer from 0 to 65535 is expected"),
        ("api = 1", "api is a section"),
        ("home = 1", "home is 1: a path is expected"),
        ("[log]\nlevel = 'loud'", "log.level is loud: one of debug, error, info, warning is"),
        ("[loader]\nimport_seconds = 0", "loader.import_seconds is 0: a number from 0.001 to"),
        ("[loader]\nprocesses = 0", "loader.processes is 0: an integer from 1 to 10000"),
        ("[worker]\nprocesses = -4", "worker.processes is -4: an integer from 1 to 10000"),
        ("[worker]\ndrain_seconds = inf", "worker.drain_seconds is inf: a number from 0 to"),
        ("[worker]\nask_seconds = nan", "worker.ask_seconds is nan: a number from"),
        ("[worker]\nqueues = []", r"worker.queues is \[\]: a list with an item at least"),
        ("[worker]\nqueues = ['a', 'b.c']", r"worker.queues\[1\] is b.c: a text that matches"),
        ("[worker]\nheartbeat_seconds = 9", "worker.heartbeat_seconds is 9: at most 4 is"),
        ("[subscriptions]\nallow_private = 'so'", "allow_private is so: true or false is"),
        ("[nats]\ntoken = 5", r"nats.token is \*\*\*: a text is expected"),
        ("[api", "is not valid TOML"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(file, text, says):
    with pytest.raises(ConfigError, match=says):
        load(file(text))


def ranges(info, path=""):
    """Yield the path of each number in the settings, with its type."""
    if isinstance(info, inspect.StructType):
        for each in info.fields:
            yield from ranges(each.type, f"{path}.{each.encode_name}")
    elif isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from ranges(each, path)
    elif isinstance(info, inspect.VarTupleType):
        yield from ranges(info.item_type, path)
    elif isinstance(info, inspect.IntType | inspect.FloatType):
        yield path, info


def test_every_number_has_a_range_with_two_ends():
    """One without was `worker.processes`: -4 was taken, and all tasks waited for ever."""
    found = dict(ranges(inspect.type_info(Config)))
    assert len(found) > 60
    assert [name for name, info in found.items() if info.ge is None or info.le is None] == []


def test_the_defaults_are_in_their_ranges():
    config = load()
    assert (
        msgspec.convert(
            msgspec.to_builtins(config, enc_hook=str), Config, dec_hook=lambda _, text: Path(text)
        )
        == config
    )


def test_a_named_file_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match=r"configuration file .*nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_a_variable_that_collides_with_a_value_is_refused():
    with pytest.raises(ConfigError, match="PUBSUBFLOW__HOME__X"):
        load(PUBSUBFLOW__HOME="/a", PUBSUBFLOW__HOME__X="/b")


def test_the_example_for_servers_over_tls_is_understood_and_shows_no_secret(file):
    page = (Path(__file__).parents[3] / "docs" / "servers.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    config = load(
        file(text),
        PUBSUBFLOW__POSTGRES__PASSWORD="hush",
        PUBSUBFLOW__NATS__TOKEN="hush",
        PUBSUBFLOW__SECRETS__KEY_FILE="~/keys",
    )
    assert (config.postgres.password, config.nats.token) == ("hush", "hush")
    assert config.nats.encrypted
    assert config.secrets.key_file.name == "keys"
    assert "hush" not in repr(config)
    assert "hush" not in str(list(config.postgres.__rich_repr__() + config.nats.__rich_repr__()))


def test_certificate_files_are_paths(file):
    config = load(file('[api]\ntls_cert = "~/cert.pem"\n'), PUBSUBFLOW__API__TLS_KEY="/k.pem")
    assert config.api.tls_cert == Path("~/cert.pem").expanduser()
    assert config.api.tls_key == Path("/k.pem")
    assert load().api.tls_cert is None


def test_names_of_users_keep_their_case_in_the_environment():
    """Variables of a bundle are its tasks', and may have `__`; groups are a provider's."""
    config = load(
        PUBSUBFLOW__BUNDLES__Team__KIND="airflow",
        PUBSUBFLOW__BUNDLES__TEAM__ENV__AIRFLOW_VAR_Region="eu",
        PUBSUBFLOW__BUNDLES__TEAM__ENV__AIRFLOW__CORE__UNIT_TEST_MODE="False",
        PUBSUBFLOW__OIDC__ROLES__OPS="viewer",
        PUBSUBFLOW__OIDC__ROLES__Data__Admins="admin",
    )
    assert config.bundles["team"].env == {
        "AIRFLOW_VAR_Region": "eu",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }
    assert config.oidc.roles == {"ops": ("viewer",), "Data__Admins": ("admin",)}
