"""When pull requests end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsubflow.bus.consumer import _expires_seconds


@given(st.floats(0, 1e8))
def test_requests_end_together_and_last_four_seconds_at_most(now):
    seconds = _expires_seconds(now)
    assert 1 <= seconds <= 4
    end = now + seconds
    # One that is sent late ends between two such moments, and the one after it at the next.
    assert end % 2 == pytest.approx(0, abs=1e-6) or end % 2 == pytest.approx(2)
    assert (end + _expires_seconds(end)) % 4 in (pytest.approx(0, abs=1e-6), pytest.approx(4))
