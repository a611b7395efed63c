"""News: places in their log, and who wants them."""

from datetime import UTC, datetime

import pytest

from pubsubflow.errors import DefinitionError
from pubsubflow.model.changes import (
    Kind,
    Place,
    RunNews,
    decode_items,
    encode_items,
    item_of,
    selection_of,
)
from pubsubflow.model.runs.states import RunState

RUN = RunNews(run_id="r", dag_id="d", state=RunState.SUCCESS, time=datetime.now(UTC))


def test_a_place_is_read_as_it_was_written():
    place = Place("0badcafe", 17, 3)
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "1", "a-1", "a-1-2-3", "g-1-2", "a-1--2", "a-١-2", "a-1-2\n"])  # noqa: RUF001
def test_what_is_no_place_is_none(text):
    assert Place.parse(text) is None


def test_items_are_kept_whole():
    item = item_of(RUN)
    assert decode_items(encode_items([item, item])) == (item, item)
    assert (item.kind, item.dag_id, item.run_id, item.dataset) == (Kind.RUN, "d", "r", None)


def test_what_has_no_dataset_is_not_wanted_by_dataset():
    chosen = selection_of(dags=["d"], runs=[], datasets=["s3://lake/**"], kinds=[])
    assert not chosen.takes(item_of(RUN))
    with pytest.raises(DefinitionError):
        selection_of(dags=[], runs=[], datasets=["no uri"], kinds=[])
