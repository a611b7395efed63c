"""Conflicts of freshness: files that declare it differently for one dataset."""

from collections.abc import Mapping

import msgspec

from pubsubflow.model.alerts import describe_conflict
from pubsubflow.model.spec import LoadedFile


def with_conflicts(files: Mapping[str, LoadedFile]) -> dict[str, LoadedFile]:
    """Return files with warnings about declarations that another file makes void.

    Args:
        files: Path → file, in the order of paths.
    """
    shortest: dict[str, tuple[float, str]] = {}
    for file, loaded in files.items():
        for each in loaded.datasets:
            if each.fresh is not None:
                found = (each.fresh.seconds, file)
                shortest[each.uri] = min(shortest.get(each.uri, found), found)
    return {file: _with_conflicts(loaded, shortest) for file, loaded in files.items()}


def _with_conflicts(loaded: LoadedFile, shortest: Mapping[str, tuple[float, str]]) -> LoadedFile:
    lines = [
        describe_conflict(each.uri, each.fresh.seconds, *shortest[each.uri])
        for each in loaded.datasets
        if each.fresh is not None and each.fresh.seconds > shortest[each.uri][0]
    ]
    if not lines:
        return loaded
    return msgspec.structs.replace(loaded, warnings=(*loaded.warnings, *lines))
