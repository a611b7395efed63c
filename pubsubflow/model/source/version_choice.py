"""The choice of versions: which one is in force, and which one a new run takes."""

from hashlib import blake2b

from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.model.source.version_changes import ADMISSION, SCHEDULING, differing_fields
from pubsubflow.model.spec import DagSpec

_WHOLE = 1 << 64


class VersionsInUse(Struct, frozen=True):
    """Which versions of a DAG are in use, by number.

    Attributes:
        in_force: What new runs take, apart from the share.
        newest: What the DAG's file defines.
        pinned: Whether an import puts no other version in force.
        canary: The version that takes a share of the new runs.
    """

    in_force: int
    newest: int
    pinned: bool = False
    canary: int | None = None


class VersionChoice(Struct, frozen=True):
    """What is to be in force.

    Attributes:
        version: Its number.
        pinned: Whether it stays when its file defines another one.
        canary: The version that is to take a share of the new runs.
        share: That share, above 0 and below 1.
    """

    version: int
    pinned: bool
    canary: int | None = None
    share: float | None = None


def choose_promotion(
    state: VersionsInUse, number: int | None, share: float | None = None
) -> VersionChoice:
    """Return what a promotion puts in force.

    Args:
        state: What is in use.
        number: The version; what the DAG's file defines if left out.
        share: The share of new runs that it takes; all of them if left out.

    Raises:
        InvalidInput: The share is none, or the version is in force.
    """
    wanted = state.newest if number is None else number
    if share is None or share == 1:
        return VersionChoice(wanted, pinned=wanted != state.newest)
    if not 0 < share < 1:
        raise InvalidInput(
            f"a share of {share:.3g} is none: give one above 0 % and up to 100 %; "
            "`pubsubflow dags rollback` ends a share"
        )
    if wanted == state.in_force:
        raise InvalidInput(
            f"version {wanted} is in force, so it takes all runs: name another one; "
            f"`pubsubflow dags rollback --to` puts an older one in force for the others"
        )
    return VersionChoice(state.in_force, pinned=True, canary=wanted, share=share)


def choose_rollback(state: VersionsInUse, number: int | None, before: int | None) -> VersionChoice:
    """Return what a rollback puts in force.

    Args:
        state: What is in use.
        number: The version; if left out, a share ends, or else the one before is meant.
        before: The version before the one in force, if there is one.

    Raises:
        InvalidInput: There is none before, or the version is a later one.
    """
    if number is None and state.canary is not None:
        return VersionChoice(state.in_force, pinned=True)
    wanted = before if number is None else number
    if wanted is None:
        raise InvalidInput(
            f"version {state.in_force} is the first that is stored: there is none to go back to"
        )
    if wanted > state.in_force:
        raise InvalidInput(
            f"version {wanted} is later than version {state.in_force}, which is in force: "
            f"`pubsubflow dags promote DAG {wanted}`"
        )
    return VersionChoice(wanted, pinned=True)


def check_share(in_force: DagSpec, canary: DagSpec) -> None:
    """Check that two versions can share the runs of a DAG.

    The state of the schedule is one, and a run is checked before it has a version: so both must
    say the same about which runs there are, and what they take.

    Raises:
        InvalidInput: They differ in that.
    """
    found = differing_fields(in_force, canary, (*SCHEDULING, *ADMISSION))
    if found:
        raise InvalidInput(
            f"the versions differ in {', '.join(found)}, which decide the runs themselves: only "
            "versions with the same schedule and params can share runs; promote it whole"
        )


def takes_canary(dag: int, canary: int, run_key: str, share: float) -> bool:
    """Return whether a run takes the version that has a share of the new runs.

    It depends on nothing else, so an event that is delivered twice decides the same twice, and a
    run that takes it under some share takes it under every larger one.

    Args:
        dag: The DAG's id in the store.
        canary: The version's.
        run_key: The key under which the run exists once; it has the id of its event.
        share: Above 0 and below 1.
    """
    # The version is a part of it: the next one is tried on other runs, not on the same ones.
    digest = blake2b(f"{dag}:{canary}:{run_key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * _WHOLE
