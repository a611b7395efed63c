"""Run policies: how satisfactions of a condition become runs."""

from datetime import timedelta
from typing import Literal

from pubsubflow.authoring.schedules.expressions import (
    Schedule,
    SlotCounters,
    as_schedule,
    duration,
    has_inputs,
)
from pubsubflow.authoring.schedules.partitions import Mappers, identity, partitioning_by
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import Seconds, whole
from pubsubflow.model.schedule import conditions
from pubsubflow.model.schedule.conditions import Batch, Debounce, Each, Latest, Policy, inputs
from pubsubflow.model.schedule.partitions import Partitioning


class PolicySchedule(Schedule):
    """A complete schedule: a condition, and how its satisfactions become runs.

    Args:
        condition: The condition that must hold.
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
        """The name of its outermost function."""
        return "partitioned" if self.policy is None else type(self.policy).__name__.lower()

    def side(self) -> Schedule:
        """Raise DefinitionError: it cannot be a side of another condition."""
        raise definition_error(
            f"{self.name}(…) is a complete schedule; combine inside of it, as in "
            f"{self.name}((a & b).or_after(…))"
        )

    def _needs_dataset(self, method: str, argument: str) -> Exception:
        return definition_error(
            f".{method}({argument}) belongs to a dataset inside of {self.name}(…), not after it"
        )

    def with_policy(self, policy: Policy) -> "PolicySchedule":
        """Return it with a policy.

        Raises:
            DefinitionError: It has one already.
        """
        if self.policy is not None:
            name = type(policy).__name__.lower()
            raise definition_error(
                f"{name}({self.name}(…)): a schedule has only one of each, batch, debounce and "
                "latest; keep one of them"
            )
        return PolicySchedule(self._condition, policy, self.partitioning)

    def condition(self, slots: SlotCounters) -> conditions.Condition:
        """Return the serialised condition."""
        return self._condition.condition(slots)

    def compiled(self) -> conditions.ScheduleSpec:
        """Return the serialised form."""
        return conditions.ScheduleSpec(
            self.condition(SlotCounters()), self.policy or Each(), self.partitioning
        )


def each(condition: object) -> Schedule:
    """Start a run for each satisfaction of the condition, in log order: the default."""
    return _runs(condition).with_policy(Each())


def batch(
    condition: object, max_events: int = 100, linger: Seconds = timedelta(seconds=10)
) -> Schedule:
    """Collect the events of many satisfactions into one run.

    Args:
        condition: The condition that must hold.
        max_events: The run starts when it has so many events.
        linger: It starts at the latest so long after its first events.

    Raises:
        DefinitionError: An argument is invalid.
    """
    try:
        most = whole(1)(max_events)
    except (TypeError, ValueError) as error:
        raise definition_error(f"batch: max_events={max_events!r} {error}") from None
    policy = Batch(most, duration(linger, "batch: linger"))
    return _collecting(condition, "batch").with_policy(policy)


def debounce(condition: object, *, quiet: Seconds, max_wait: Seconds | None = None) -> Schedule:
    """Collect events into one run, which starts when no event has arrived for a while.

    Args:
        condition: The condition that must hold.
        quiet: The time without an event.
        max_wait: The run starts at the latest so long after its first events.

    Raises:
        DefinitionError: An argument is invalid, or `max_wait` is shorter than `quiet`.
    """
    rest = duration(quiet, "debounce: quiet")
    most = None if max_wait is None else duration(max_wait, "debounce: max_wait")
    if most is not None and most < rest:
        raise definition_error(f"debounce: max_wait={max_wait!r} is shorter than quiet={quiet!r}")
    return _collecting(condition, "debounce").with_policy(Debounce(rest, most))


def latest(condition: object) -> Schedule:
    """Collapse the satisfactions during an active run into one next run."""
    return _runs(condition).with_policy(Latest())


def partitioned(
    condition: object,
    by: Mappers = identity,
    *,
    at_least: int | None = None,
    again: Literal["each", "never"] | None = None,
) -> Schedule:
    """Evaluate the condition per partition key: its events must be of one partition.

    Args:
        condition: The condition within one partition.
        by: How an event's key becomes a run's key: `identity`, `fixed`, `roll_up`, `fan_out`,
            `product`; or a mapping of datasets to them, `identity` for those left out.
        at_least: How many different parts of a rolled-up window suffice; all by default.
        again: `each` makes each satisfaction within a key a run; with `never` a key runs once, and
            later events of it are skipped unless their extra has `"rerun": true`. By default
            `never` for windows that roll up, and `each` for other keys.

    Raises:
        DefinitionError: An argument is invalid, or the condition is partitioned already.
    """
    found = as_schedule(condition)
    if isinstance(found, PolicySchedule):
        if found.partitioning is not None:
            raise definition_error("partitioned(partitioned(…)): keep one of them")
        raise definition_error(
            f"partitioned goes inside of the policy; write {found.name}(partitioned(…))"
        )
    # Compiled with counters of its own: the numbers of this condition are thrown away.
    uris = {each.uri for each in inputs(found.condition(SlotCounters()))}
    if not uris:
        raise definition_error(
            f"partitioned: {found!r} holds no dataset, so no event has a partition"
        )
    return PolicySchedule(found, partitioning=partitioning_by(by, uris, at_least, again))


def _runs(condition: object) -> PolicySchedule:
    found = as_schedule(condition)
    return found if isinstance(found, PolicySchedule) else PolicySchedule(found)


def _collecting(condition: object, name: str) -> PolicySchedule:
    found = _runs(condition)
    if not has_inputs(found):
        raise definition_error(
            f"{name}: {found!r} holds no dataset, so it has no events to collect"
        )
    return found
