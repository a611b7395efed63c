"""A real IMAP server (pymap) in a process of its own, and a way to put mail into it."""

import imaplib
import socket
import subprocess
import sys
from contextlib import contextmanager
from email.message import EmailMessage

USER, PASSWORD = "demouser", 'p"ä\\ss'
# It says when it listens; without IDLE where the test asks for that.
_SERVER = """
import sys
from pymap import main
from pymap.backend.dict import Config
from pymap.config import BackendCapability
offered = BackendCapability(idle=sys.argv.pop(1) == "idle", object_id=True, multi_append=True)
Config.backend_capability = offered
main.notify_ready = lambda: print("ready", flush=True)
main.main()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def imap_server(port, *, idle=True):
    """Run a server for as long as the block; its mailbox begins empty."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _SERVER, "idle" if idle else "poll"),
            *("--host", "127.0.0.1", "--port", str(port), "--no-tls"),
            *("dict", "--demo-user", USER, "--demo-password", PASSWORD),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.terminate()
        process.communicate()


class Inbox:
    """A folder to put mail into, as another client does; a context manager.

    Args:
        port: The server's.
        folder: Its name; made when it is not INBOX.
    """

    def __init__(self, port, folder="INBOX"):
        self.port = port
        self.folder = folder
        self._quoted = f'"{folder}"'

    def __enter__(self):
        self._client = imaplib.IMAP4("127.0.0.1", self.port)
        self._client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())
        if self.folder != "INBOX":
            self._ask("create", self._quoted)
        return self

    def __exit__(self, *_):
        self._client.logout()

    def put(self, subject="hello", sender="Ann <ann@example.com>", text="a\nb\n", when=None):
        mail = EmailMessage()
        mail["From"], mail["Subject"] = sender, subject
        mail["Date"] = "Fri, 20 Nov 2026 12:00:00 +0100"
        mail.set_content(text)
        self.put_bytes(mail.as_bytes(), when)

    def put_bytes(self, mail, when=None):
        self._ask("append", self._quoted, None, when, mail)

    def begin_anew(self):
        """Empty the folder and let its numbers mean something else."""
        self._ask("delete", self._quoted)
        self._ask("create", self._quoted)

    def _ask(self, command, *arguments):
        code, said = getattr(self._client, command)(*arguments)
        assert code == "OK", said
