"""Object triggers: wait for objects in S3 and other stores that fsspec supports."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import fsspec
import msgspec
from anyio.to_thread import run_sync

from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.model.triggers import Trigger, TriggerContext, TriggerEvent
from pubsubflow_triggers.backoff import Backoff
from pubsubflow_triggers.checks import check_interval
from pubsubflow_triggers.credentials import resolve_all
from pubsubflow_triggers.sightings import Sighting, Sightings

_MARGIN = timedelta(days=1)
"""How much earlier than its appearance an object may be dated: S3 dates by an upload's start."""
_MAGIC = frozenset("*?[")
_VERSIONS = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "checksum")
_APPEARED = ("LastModified", "last_modified", "updated", "created", "mtime")
_CHANGED = ("LastModified", "last_modified", "updated", "modified", "mtime", "created")


class _Objects(Trigger, frozen=True, kw_only=True):
    url: str
    storage_options: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    interval: timedelta = timedelta(seconds=30)
    stable_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Raise DefinitionError for an invalid field."""
        kind = type(self).__name__
        scheme = urlsplit(self.url).scheme
        if scheme not in fsspec.available_protocols():
            raise DefinitionError(
                f"{kind}: url must begin with a scheme that fsspec knows, such as s3:// or "
                f"file://, not {self.url!r}"
            )
        if self.stable_seconds < 0:
            raise DefinitionError(f"{kind}: stable_seconds must not be negative")
        check_interval(kind, self.interval)

    def share_key(self) -> str:
        """Share one poll among equal triggers."""
        return msgspec.json.encode(self).decode()

    async def _follow(
        self, ctx: TriggerContext, scan: Callable[[dict[str, Any]], list[Sighting]]
    ) -> AsyncIterator[TriggerEvent]:
        """Scan at intervals, and yield new objects."""
        stable = timedelta(seconds=self.stable_seconds)
        seen = Sightings(ctx.position, stable=stable, margin=_MARGIN)
        backoff = Backoff(ctx, self.url)
        while True:
            try:
                options = await resolve_all(ctx, self.storage_options)
                found = await run_sync(scan, options, abandon_on_cancel=True)
            except TriggerError:
                raise
            except ImportError as error:
                raise TriggerError(
                    f"{self.url} needs a driver, for S3 pip install 'pubsubflow-triggers[s3]': "
                    f"{error}"
                ) from error
            except (PermissionError, ValueError, TypeError) as error:
                raise TriggerError(f"{self.url} cannot be read: {error}") from error
            except Exception as error:  # noqa: BLE001 - each store has errors of its own
                await backoff.failed(error)
                continue
            backoff.reached()
            for each in seen.update(found, ctx.now()):
                yield seen.report(each)
            seconds = self.interval.total_seconds()
            if (until := seen.settles_at()) is not None:
                seconds = min(seconds, max(0.0, (until - ctx.now()).total_seconds()))
            await ctx.sleep(seconds)

    def _opened(self, options: dict[str, Any]) -> tuple[Any, str]:
        """Return the file system and the path in it."""
        system, path = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **options)
        system.invalidate_cache()
        return system, path


class ObjectAppears(_Objects, frozen=True, kw_only=True):
    """Fires when an object is there; again when it is there with other content.

    Attributes:
        url: For example `s3://lake/orders/_SUCCESS`.
        storage_options: Options for the store's driver in fsspec: credentials, `endpoint_url`. A
            string `env:NAME` in it stands for the triggerer's environment variable,
            `connection:NAME.field` for a connection's.
        interval: Time between two scans; at least 0.1 s.
        stable_seconds: How long it must not have changed; 0 does not wait.

    The payload is `{"url", "size", "version", "modified"}`: bytes, the store's checksum or tag if
    it has one, and ISO 8601 in UTC.
    """

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield the object when it is there, and each time that it is another."""
        return self._follow(ctx, self._scan)

    def _scan(self, options: dict[str, Any]) -> list[Sighting]:
        system, path = self._opened(options)
        try:
            facts = system.info(path)
        except FileNotFoundError:
            return []
        return _sightings(system, [facts])


class ObjectGlob(_Objects, frozen=True, kw_only=True):
    """Fires for each object whose URL matches a pattern, those that are there already first.

    As `Dataset(watch=…)` it fires once for every object, also for those that appear while nothing
    runs. Each scan lists the folders of the pattern: begin it with a long prefix without wildcards.

    Attributes:
        url: For example `s3://lake/orders/day=*/*.parquet`; `**` stands for any folders.
        storage_options: As of ObjectAppears.
        interval: Time between two scans; at least 0.1 s.
        stable_seconds: How long an object must not have changed; 0 does not wait.

    The payload is that of ObjectAppears.
    """

    def __post_init__(self) -> None:
        """Raise DefinitionError for a URL without a wildcard."""
        super().__post_init__()
        if not _MAGIC & set(self.url):
            raise DefinitionError(
                f"ObjectGlob: {self.url!r} has no wildcard; ObjectAppears waits for one object"
            )

    def run(self, ctx: TriggerContext) -> AsyncIterator[TriggerEvent]:
        """Yield each object that matches."""
        return self._follow(ctx, self._scan)

    def _scan(self, options: dict[str, Any]) -> list[Sighting]:
        system, path = self._opened(options)
        try:
            found: dict[str, dict[str, Any]] = system.glob(path, detail=True)
        except FileNotFoundError:
            return []
        return _sightings(system, list(found.values()))


def _sightings(system: Any, found: list[dict[str, Any]]) -> list[Sighting]:
    return [_sighting(system, facts) for facts in found if facts["type"] == "file"]


def _sighting(system: Any, facts: dict[str, Any]) -> Sighting:
    url = system.unstrip_protocol(facts["name"])
    size = int(facts.get("size") or 0)
    appeared, changed = _moment(facts, _APPEARED), _moment(facts, _CHANGED)
    modified = changed.isoformat() if changed else None
    version = next((str(facts[key]).strip('"') for key in _VERSIONS if facts.get(key)), None)
    return Sighting(
        id=f"{url}:{version or f'{modified}:{size}'}",
        stamp=appeared.timestamp() if appeared else 0.0,
        size=size,
        payload={"url": url, "size": size, "version": version, "modified": modified},
    )


def _moment(facts: dict[str, Any], keys: tuple[str, ...]) -> datetime | None:
    """Return the first moment that a store gives under one of the keys."""
    value = next((facts[key] for key in keys if facts.get(key)), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return None
