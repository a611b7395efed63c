"""Running PostgreSQL's programs under the account they need."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import anyio
from anyio import to_thread

from pubsubflow.embedded.binaries import PostgresInstall, find_postgres, readable_by
from pubsubflow.embedded.child import Child
from pubsubflow.embedded.home import Home, write_private
from pubsubflow.embedded.os_account import Account, choose_account
from pubsubflow.embedded.server_log import Journal

_HERE = "/proc/self/cwd"


class Programs:
    """PostgreSQL's programs, for one home.

    Root's home may lie where Postgres' account cannot go. So the programs are started *in* the
    data folder, which the kernel allows, and know it by ``/proc/self/cwd`` alone: the data stays
    in the home, and no folder's mode is changed for it.

    Args:
        home: The home, held.
        install: What runs.
        account: Who runs it, ourselves when None.
        journal: Takes what the programs print.
    """

    def __init__(
        self, home: Home, install: PostgresInstall, account: Account | None, journal: Journal
    ) -> None:
        self.install = install
        self._home = home
        self._account = account
        self._journal = journal

    @classmethod
    async def find(cls, home: Home, data: Path, journal: Journal, cache: Path) -> Self:
        """Find an account for the data, and programs that it can run.

        Args:
            home: The home, held.
            data: Data folder, which need not exist yet.
            journal: Takes what the programs print.
            cache: Where copies may be put for an account that cannot read the wheel.

        Raises:
            ConfigError: There are none.
        """
        account = choose_account(data)
        install = find_postgres()
        if account:
            install = await to_thread.run_sync(readable_by, account, install, cache)
        return cls(home, install, account, journal)

    def spawn(
        self, program: str, data: Path, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> Child:
        """Start a program in a data folder.

        Args:
            program: Its name, such as ``"postgres"``.
            data: Data folder.
            arguments: What follows the data folder on its command line.
            stdin: Descriptor to read from; nothing by default.

        Raises:
            OSError: No process could be made.
        """
        output = self._journal.open()
        try:
            return Child.spawn(
                [self.install.program(program), *arguments, "-D", self._seen_from_within(data)],
                cwd=data,
                output=output,
                death_signal=signal.SIGQUIT,  # an immediate shutdown
                account=self._account,
                inherit=[self._home.servers_lock],
                stdin=stdin,
            )
        finally:
            os.close(output)

    async def complete(self, program: str, data: Path, *arguments: str, stdin: str = "") -> None:
        """Run a program to its end.

        Raises:
            ConfigError: It failed; the text quotes it.
            OSError: The disk is full, or no process could be made.
        """
        with tempfile.TemporaryFile() as file:
            file.write(stdin.encode())
            file.seek(0)
            child = self.spawn(program, data, *arguments, stdin=file.fileno())
        try:
            code = await child.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await child.stop()
        if code or self._journal.contains("ERROR:"):  # a stand-alone backend goes on after one
            raise self._journal.failure(program, code)

    def make_folder(self, path: Path) -> None:
        """Make a folder that is the account's alone."""
        path.mkdir(mode=0o700)
        if self._account:
            os.chown(path, self._account.uid, self._account.gid, follow_symlinks=False)

    def write(self, path: Path, content: str) -> None:
        """Write a file that is the account's alone."""
        owner = (self._account.uid, self._account.gid) if self._account else None
        write_private(path, content.encode(), owner)

    def _seen_from_within(self, data: Path) -> Path:
        return Path(_HERE) if self._account and sys.platform == "linux" else data
