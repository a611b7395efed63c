"""The Compose file: a valid one, and one in which nothing is lost or open by default."""

import pytest
from jsonschema import Draft7Validator

from support.compose import ROOT, read_compose, read_schema

OURS = ("setup", "daemon", "worker")


@pytest.fixture(scope="module")
def services():
    return read_compose()["services"]


def test_it_is_valid_by_the_schema_of_compose():
    found = Draft7Validator(read_schema()).iter_errors(read_compose())
    assert [f"{error.json_path}: {error.message}" for error in found] == []


def test_its_text_is_plain():
    """A header that was cut in the middle of a character went unseen for long."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert text.isascii()
    assert max(map(len, text.splitlines())) < 120


def test_the_api_is_published_on_this_machine_alone(services):
    assert services["daemon"]["ports"] == ["127.0.0.1:8080:8080"]
    assert [name for name in services if "ports" in services[name]] == ["daemon"]


def test_keys_data_and_streams_are_on_volumes(services):
    kept = read_compose()["volumes"]
    mounted = {
        volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", ())
        if not volume.startswith(".")
    }
    assert mounted == set(kept) == {"home", "nats-1", "nats-2", "nats-3", "postgres"}
    assert "home:/var/lib/pubsubflow" in services["daemon"]["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_run_one_image_that_cannot_be_written_to(services, name):
    service = services[name]
    assert service["image"] == "pubsubflow:local"
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "/tmp" in service["tmpfs"]
    assert "user" not in service  # the image's, which is not root


def test_a_worker_has_time_to_drain_and_knows_nothing_of_postgres(services):
    assert services["worker"]["stop_grace_period"] == "45s"
    assert not any("POSTGRES" in name for name in services["worker"]["environment"])
    assert not any("/dags" in each for each in services["worker"].get("volumes", ()))
