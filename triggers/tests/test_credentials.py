import pytest
from pubsubflow_triggers.credentials import resolve

from pubsubflow.errors import TriggerError


def test_plain_value_is_itself_and_env_names_a_variable(monkeypatch):
    monkeypatch.setenv("SOME_SECRET", "quiet")
    assert resolve("loud") == "loud"
    assert resolve("env:SOME_SECRET") == "quiet"


def test_missing_variable_says_its_name(monkeypatch):
    monkeypatch.delenv("SOME_SECRET", raising=False)
    with pytest.raises(TriggerError, match="'SOME_SECRET' is not set"):
        resolve("env:SOME_SECRET")
