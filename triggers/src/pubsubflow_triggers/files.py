"""Waiting for files of the triggerer's machine, or of a file system that it shares."""

import glob
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from stat import S_ISREG

import msgspec
from anyio.to_thread import run_sync
from msgspec import Struct

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_interval
from pubsubflow_triggers.folders import DEEP, FLAT, Ear, Folders
from pubsubflow_triggers.sightings import Sighting, Sightings

_MARGIN = timedelta(minutes=1)
"""How far a clock may be set back, or another machine's clock be behind, during a restart."""


class _Files(Trigger, frozen=True, kw_only=True):
    stable_seconds: float = 0.0
    min_bytes: int = 0
    interval: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        """Raise DefinitionError for what cannot be watched."""
        kind = type(self).__name__
        if self.stable_seconds < 0 or self.min_bytes < 0:
            raise DefinitionError(f"{kind}: stable_seconds and min_bytes must not be negative")
        check_interval(kind, self.interval)

    def share_key(self) -> str:
        """Let equal ones share what is seen."""
        return msgspec.json.encode(self).decode()

    async def _follow(
        self,
        ctx: TriggerContext,
        scan: Callable[[], list[Sighting]],
        folder: Path,
        watcher: Folders,
    ) -> AsyncIterator[TriggerEvent]:
        """Look each time that the system tells of a change, and yield what is new."""
        stable = timedelta(seconds=self.stable_seconds)
        seen = Sightings(ctx.position, stable=stable, margin=_MARGIN, min_bytes=self.min_bytes)
        backoff = Backoff(ctx, str(folder))
        place, ear = None, None
        with ExitStack() as listening:
            while True:
                try:
                    found_place, found = await run_sync(_see, folder, scan, abandon_on_cancel=True)
                except PermissionError as error:
                    raise TriggerError(f"{type(self).__name__} may not look: {error}") from error
                except OSError as error:
                    await backoff.failed(error)
                    continue
                backoff.reached()
                if found_place != place:  # it was made, removed or replaced
                    listening.close()
                    place = found_place
                    ear = listening.enter_context(watcher.listening(place.path)) if place else None
                for each in seen.look(found, ctx.now()):
                    yield seen.tell(each)
                await self._pause(ctx, ear, seen.settles_at())

    async def _pause(self, ctx: TriggerContext, ear: Ear | None, until: datetime | None) -> None:
        """Return when it is worth to look again."""
        seconds = self.interval.total_seconds()
        if until is not None:
            seconds = min(seconds, max(0.0, (until - ctx.now()).total_seconds()))
        if ear is None:
            await ctx.sleep(seconds)
            return
        if (reason := ear.newly_deaf()) is not None:
            ctx.log("file.polled", folder=str(ear.folder), reason=reason)
        await ear.news(ctx, seconds)


class FileAppears(_Files, frozen=True, kw_only=True):
    """Fires when a file is there and complete; again when it is there with other content.

    The system tells of changes (inotify, FSEvents). Where it does not, as in a folder that does not
    exist yet or on a network file system, the file is looked for at intervals.

    Attributes:
        path: Absolute path.
        stable_seconds: How long its size and time must not have changed; 0 does not wait.
        min_bytes: A smaller file does not count.
        interval: How often to look where the system tells nothing; at least 0.1 s.

    The payload is `{"path", "size", "modified"}`: bytes, and ISO 8601 in UTC.
    """

    path: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for a path that is not absolute."""
        super().__post_init__()
        if not Path(self.path).is_absolute():
            raise DefinitionError(f"FileAppears: path must be absolute, not {self.path!r}")

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield the file when it is there, and each time that it is another."""
        return self._follow(ctx, partial(_look, [self.path]), Path(self.path).parent, FLAT)


class FileGlob(_Files, frozen=True, kw_only=True):
    """Fires for each file whose path matches a pattern, those that are there already first.

    As `Dataset(watch=…)` it tells of every file once, also of those that come while nothing runs.
    Files are in the order in which they came.

    Attributes:
        pattern: Absolute; `*`, `?` and `[…]` within a name, `**` for any folders.
        stable_seconds: How long a file's size and time must not have changed; 0 does not wait.
        min_bytes: Smaller files do not count.
        interval: How often to look where the system tells nothing; at least 0.1 s.

    The payload is that of FileAppears.
    """

    pattern: str

    def __post_init__(self) -> None:
        """Raise DefinitionError for a pattern that is not absolute, or is a plain path."""
        super().__post_init__()
        if not Path(self.pattern).is_absolute():
            raise DefinitionError(f"FileGlob: pattern must be absolute, not {self.pattern!r}")
        if not glob.has_magic(self.pattern):
            raise DefinitionError(
                f"FileGlob: {self.pattern!r} has no wildcard; FileAppears waits for one file"
            )

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield each file that matches."""
        folder = Path(self.pattern).parent
        deep = glob.has_magic(str(folder))
        while glob.has_magic(str(folder)):
            folder = folder.parent
        return self._follow(ctx, partial(_search, self.pattern), folder, DEEP if deep else FLAT)


def _search(pattern: str) -> list[Sighting]:
    return _look(glob.iglob(pattern, recursive=True))  # noqa: PTH207 - takes absolute patterns


def _look(paths: Iterable[str]) -> list[Sighting]:
    found = []
    for path in paths:
        try:
            facts = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if S_ISREG(facts.st_mode):
            found.append(_sighting(path, facts))
    return found


def _sighting(path: str, facts: os.stat_result) -> Sighting:
    """Return what identifies a file; its time of change, which no program can set, orders it."""
    modified = datetime.fromtimestamp(facts.st_mtime, UTC).isoformat()
    return Sighting(
        id=f"{path}:{facts.st_mtime_ns}:{facts.st_size}",
        stamp=facts.st_ctime,
        size=facts.st_size,
        payload={"path": path, "size": facts.st_size, "modified": modified},
    )


class _Place(Struct, frozen=True):
    path: Path
    inode: int


def _see(folder: Path, scan: Callable[[], list[Sighting]]) -> tuple[_Place | None, list[Sighting]]:
    """Return where a folder is, if it is there, and what is in it."""
    if not folder.is_dir():
        return None, []
    return _Place(folder.resolve(), folder.stat().st_ino), scan()
