"""Variables that a DAG file uses while it loads."""

import pytest

from pubsubflow import DefinitionError, variable
from pubsubflow.authoring.registry import LoadedDefinitions, loading


def test_without_a_loader_the_environment_counts(monkeypatch):
    assert variable("a.limit", 5) == 5
    monkeypatch.setenv("PUBSUBFLOW_VAR_A_LIMIT", "[7]")
    assert variable("a.limit", 5) == [7]
    with pytest.raises(DefinitionError, match="variable 'other' is not set; set it with"):
        variable("other")


def test_a_file_gets_what_is_known_and_the_rest_is_wanted():
    into = LoadedDefinitions("f", {"set": (None,), "unset": (), "token": ()}, ["token"])
    with loading("f", into):
        assert variable("set", 1) is None
        assert variable("unset", 2) == 2
        assert variable("unknown", 3) == 3
        with pytest.raises(DefinitionError, match="variable 'token' is secret"):
            variable("token", 4)
        with pytest.raises(DefinitionError, match="'needed' is not set"):
            variable("needed")
    assert into.used == {"set": (None,), "unset": (), "token": ()}
    assert list(into.wanted) == ["unknown", "needed"]
