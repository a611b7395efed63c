"""PostgreSQL's programs, run under the account they need."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import anyio
from anyio import to_thread

from pubsubflow.embedded.binaries import PostgresInstall, executable_by, find_postgres
from pubsubflow.embedded.child import Child
from pubsubflow.embedded.home import Home, write_private
from pubsubflow.embedded.os_account import OsAccount, choose_account
from pubsubflow.embedded.server_log import ServerLog

_HERE = "/proc/self/cwd"


class PostgresPrograms:
    """PostgreSQL's programs, for one home.

    Postgres' account may have no access to root's home. So the programs are started *in* the data
    folder, which the kernel allows, and get ``/proc/self/cwd`` as its path: the data stays in the
    home, and no folder's mode is changed.

    Args:
        home: The home, held.
        install: The installation.
        account: The account that runs it; the daemon's own if None.
        log: Gets the output of the programs.
    """

    def __init__(
        self, home: Home, install: PostgresInstall, account: OsAccount | None, log: ServerLog
    ) -> None:
        self.install = install
        self._home = home
        self._account = account
        self._log = log

    @classmethod
    async def find(cls, home: Home, data: Path, log: ServerLog, cache: Path) -> Self:
        """Find an account for the data, and programs that it can execute.

        Args:
            home: The home, held.
            data: Data folder, which need not exist yet.
            log: Gets the output of the programs.
            cache: Folder for copies, for an account that cannot read the wheel.

        Raises:
            ConfigError: There is none of the two.
        """
        account = choose_account(data)
        install = find_postgres()
        if account:
            install = await to_thread.run_sync(executable_by, account, install, cache)
        return cls(home, install, account, log)

    def spawn(
        self, program: str, data: Path, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> Child:
        """Start a program in a data folder.

        Args:
            program: Its name, such as ``"postgres"``.
            data: Data folder.
            arguments: Further arguments.
            stdin: Descriptor to read from; nothing by default.

        Raises:
            OSError: The process could not be started.
        """
        output = self._log.open()
        try:
            return Child.spawn(
                [self.install.program(program), *arguments, "-D", self._data_path(data)],
                cwd=data,
                output=output,
                death_signal=signal.SIGQUIT,  # an immediate shutdown
                account=self._account,
                inherit=[self._home.servers_lock],
                stdin=stdin,
            )
        finally:
            os.close(output)

    async def run(
        self,
        program: str,
        data: Path,
        *arguments: str,
        stdin: str = "",
        launched: anyio.Event | None = None,
    ) -> None:
        """Run a program until it exits.

        Args:
            program: Its name.
            data: Data folder.
            arguments: Further arguments.
            stdin: Text to read; the account may open it as /dev/stdin.
            launched: Set once the process has been started.

        Raises:
            ConfigError: It failed; the message quotes its last error.
            OSError: The disk is full, or the process could not be started.
        """
        with tempfile.TemporaryFile() as file:
            file.write(stdin.encode())
            file.seek(0)
            if self._account:
                os.fchown(file.fileno(), self._account.uid, self._account.gid)
            child = self.spawn(program, data, *arguments, stdin=file.fileno())
        if launched is not None:
            launched.set()
        try:
            code = await child.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await child.stop()
        # A stand-alone backend continues after an error, and exits with 0.
        if code or self._log.contains("ERROR:"):
            raise self._log.start_error(program, code)

    def make_folder(self, path: Path) -> None:
        """Create a folder that only the account can access."""
        path.mkdir(mode=0o700)
        if self._account:
            os.chown(path, self._account.uid, self._account.gid, follow_symlinks=False)

    def write(self, path: Path, content: str) -> None:
        """Write a file that only the account can access."""
        owner = (self._account.uid, self._account.gid) if self._account else None
        write_private(path, content.encode(), owner)

    def _data_path(self, data: Path) -> Path:
        return Path(_HERE) if self._account and sys.platform == "linux" else data
