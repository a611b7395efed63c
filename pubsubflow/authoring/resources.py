"""The resources of a task: what it may use of a worker's memory and CPUs."""

from msgspec import Struct

from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import optional
from pubsubflow.model.wire.task_resources import ResourcesSpec, parse_cpu, parse_memory


class Resources(Struct, frozen=True):
    """What a task may use; one that uses more memory fails.

    Attributes:
        memory: A text such as `2GiB` or `512MB`, or bytes; None without a bound.
        cpu: How many CPUs, such as 1.5; None without a bound.

    Raises:
        DefinitionError: A value cannot be read, or both are left out.
    """

    memory: str | int | None = None
    cpu: float | None = None

    def __post_init__(self) -> None:
        """Check the values where they are written."""
        if self.memory is None and self.cpu is None:
            raise definition_error("Resources needs memory=, cpu= or both")
        for name, check in (("memory", parse_memory), ("cpu", parse_cpu)):
            value = getattr(self, name)
            try:
                optional(check)(value)
            except (TypeError, ValueError) as error:
                raise definition_error(f"Resources: {name}={value!r} {error}") from None


def resources_spec(value: object) -> ResourcesSpec:
    """Return the serialised form of a `Resources`.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, Resources):
        raise TypeError('must be a Resources, such as Resources(memory="2GiB", cpu=1.5)')
    return ResourcesSpec(optional(parse_memory)(value.memory), optional(parse_cpu)(value.cpu))
