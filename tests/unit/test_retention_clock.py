"""A clock of the database that is wrong for a moment removes nothing."""

from pubsubflow.retention.service import SteadyClock

YEAR = 366 * 86_400


class Clocks:
    """The clocks of a process and of a database."""

    def __init__(self) -> None:
        self.process, self.store = 1000.0, 5_000_000.0
        self.steady = SteadyClock(lambda: self.process)

    def later(self, seconds: float, *, jump: float = 0) -> bool:
        """Let time pass, and return whether the database's clock is trusted then."""
        self.process += seconds
        self.store += seconds + jump
        return self.steady.is_steady(self.store)


def test_a_clock_is_trusted_when_it_was_seen_to_go():
    clocks = Clocks()
    assert not clocks.later(0)
    assert clocks.later(300)
    assert clocks.later(300, jump=-5)  # as NTP sets it


def test_a_jump_is_distrusted_for_an_hour():
    for jump in (YEAR, -YEAR):
        clocks = Clocks()
        clocks.later(0)
        assert not clocks.later(300, jump=jump)
        assert not clocks.later(300)
        assert not clocks.later(300, jump=-jump)
        assert not clocks.later(3500)
        assert clocks.later(200)
