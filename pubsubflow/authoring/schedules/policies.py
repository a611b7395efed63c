"""How satisfactions of a condition become runs, as users write it."""

from datetime import timedelta

from pubsubflow.authoring.schedules.expressions import (
    Numbers,
    Schedule,
    as_schedule,
    duration,
    has_inputs,
)
from pubsubflow.authoring.schedules.partitions import Mappers, identity, partitioning_by
from pubsubflow.authoring.source_location import mistake
from pubsubflow.authoring.validation import Seconds, whole
from pubsubflow.model.schedule import conditions
from pubsubflow.model.schedule.conditions import Batch, Debounce, Each, Latest, Policy, inputs
from pubsubflow.model.schedule.partitions import Partitioning


class Runs(Schedule):
    """A whole schedule: a condition, and how its satisfactions become runs.

    Args:
        condition: What must hold.
        policy: None until one is chosen.
        partitioning: None unless it holds per partition key.
    """

    __slots__ = ("_condition", "partitioning", "policy")

    def __init__(
        self,
        condition: Schedule,
        policy: Policy | None = None,
        partitioning: Partitioning | None = None,
    ) -> None:
        self._condition = condition
        self.policy = policy
        self.partitioning = partitioning

    def __repr__(self) -> str:
        return conditions.describe_schedule(self.compiled())

    @property
    def name(self) -> str:
        """What its outermost function is called."""
        return "partitioned" if self.policy is None else type(self.policy).__name__.lower()

    def side(self) -> Schedule:
        """Raise: it is no side of another condition."""
        raise mistake(
            f"{self.name}(…) is a whole schedule; combine inside of it, as in "
            f"{self.name}((a & b).or_after(…))"
        )

    def _not_here(self, method: str, argument: str) -> Exception:
        return mistake(
            f".{method}({argument}) belongs to a dataset inside of {self.name}(…), not behind it"
        )

    def with_policy(self, policy: Policy) -> "Runs":
        """Return it with a policy.

        Raises:
            DefinitionError: It has one.
        """
        if self.policy is not None:
            name = type(policy).__name__.lower()
            raise mistake(
                f"{name}({self.name}(…)): a schedule has one of each, batch, debounce and "
                "latest; keep one of them"
            )
        return Runs(self._condition, policy, self.partitioning)

    def condition(self, numbers: Numbers) -> conditions.Condition:
        """Return the serialised condition."""
        return self._condition.condition(numbers)

    def compiled(self) -> conditions.Schedule:
        """Return the serialised form."""
        return conditions.Schedule(
            self.condition(Numbers()), self.policy or Each(), self.partitioning
        )


def each(condition: object) -> Schedule:
    """Let each satisfaction of the condition be a run, in the order of the log: the default."""
    return _runs(condition).with_policy(Each())


def batch(
    condition: object, max_events: int = 100, linger: Seconds = timedelta(seconds=10)
) -> Schedule:
    """Collect the events of many satisfactions into one run.

    Args:
        condition: What must hold.
        max_events: The run starts when it has so many.
        linger: It starts at the latest so long after its first ones.

    Raises:
        DefinitionError: One of them is bad.
    """
    try:
        most = whole(1)(max_events)
    except (TypeError, ValueError) as error:
        raise mistake(f"batch: max_events={max_events!r} {error}") from None
    policy = Batch(most, duration(linger, "batch: linger"))
    return _collecting(condition, "batch").with_policy(policy)


def debounce(condition: object, *, quiet: Seconds, max_wait: Seconds | None = None) -> Schedule:
    """Collect events into one run, which starts when no more have come for a while.

    Args:
        condition: What must hold.
        quiet: How long no event may have come.
        max_wait: The run starts at the latest so long after its first ones.

    Raises:
        DefinitionError: One of them is bad, or `max_wait` is shorter than `quiet`.
    """
    rest = duration(quiet, "debounce: quiet")
    most = None if max_wait is None else duration(max_wait, "debounce: max_wait")
    if most is not None and most < rest:
        raise mistake(f"debounce: max_wait={max_wait!r} is shorter than quiet={quiet!r}")
    return _collecting(condition, "debounce").with_policy(Debounce(rest, most))


def latest(condition: object) -> Schedule:
    """Let later satisfactions collapse into one next run while a run is active."""
    return _runs(condition).with_policy(Latest())


def partitioned(
    condition: object, by: Mappers = identity, *, at_least: int | None = None
) -> Schedule:
    """Let the condition hold per partition key: its events must be of one partition.

    Args:
        condition: What must hold within one partition; a key runs once.
        by: How an event's key becomes a run's key: `identity`, `fixed`, `roll_up`, `fan_out`,
            `product`; or a mapping of datasets to them, `identity` for those left out.
        at_least: How many different parts of a window that is rolled up suffice; all by default.

    Raises:
        DefinitionError: One of them is bad, or it is partitioned already.
    """
    found = as_schedule(condition)
    if isinstance(found, Runs):
        if found.partitioning is not None:
            raise mistake("partitioned(partitioned(…)): keep one of them")
        raise mistake(
            f"partitioned stands inside of the policy; write {found.name}(partitioned(…))"
        )
    uris = {place.uri for place in inputs(found.condition(Numbers()))}
    if not uris:
        raise mistake(f"partitioned: no dataset stands in {found!r}, so no event has a partition")
    return Runs(found, partitioning=partitioning_by(by, uris, at_least))


def _runs(condition: object) -> Runs:
    found = as_schedule(condition)
    return found if isinstance(found, Runs) else Runs(found)


def _collecting(condition: object, name: str) -> Runs:
    found = _runs(condition)
    if not has_inputs(found):
        raise mistake(f"{name}: no dataset stands in {found!r}, so there are no events to collect")
    return found
