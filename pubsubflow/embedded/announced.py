"""Announced homes: a daemon on servers of the user's own is found by its home, too."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec
import structlog

from pubsubflow.embedded.home import Home, HomeOwner
from pubsubflow.errors import ConfigError

log = structlog.get_logger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AnnouncedHome:
    """A home that a daemon holds only to be found by commands; opened by `open`.

    Args:
        home: The home, held.
        owner: This daemon.
    """

    def __init__(self, home: Home, owner: HomeOwner) -> None:
        self._home = home
        self._owner = owner

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, *, now: Callable[[], datetime] = _utc_now
    ) -> AsyncIterator[Self | None]:
        """Hold a home for the length of a block; None if another daemon does, or it is unusable.

        The daemon runs all the same: its servers are elsewhere, and commands reach it by its URL.
        """
        home = Home(path)
        owner = HomeOwner(pid=os.getpid(), started_at=now())
        try:
            await home.acquire(owner, servers=False)
        except ConfigError as error:
            log.info("daemon.home_not_held", reason=str(error))
            yield None
            return
        try:
            yield cls(home, owner)
        finally:
            home.release()

    def announce(
        self, url: str, *, token: str | None = None, certificate: Path | None = None
    ) -> None:
        """Publish the URL of this daemon's HTTP server in the home; see `EmbeddedServers`."""
        owner = msgspec.structs.replace(
            self._owner,
            url=url,
            token=token,
            certificate=None if certificate is None else str(certificate.absolute()),
        )
        self._home.write_owner(owner)
