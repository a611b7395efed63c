"""A distribution with plugins that a test writes, as if it were installed."""

from contextlib import contextmanager

from pubsubflow import plugins

SIGNING = """
import hmac
from pubsubflow.webhooks import NotVerified, PluginVerifier

class AcmeSigned(PluginVerifier, frozen=True, kw_only=True):
    header: str = "x-acme"

    def verify(self, request, secrets, now):
        given = request.one(self.header)
        if given == b"why":
            raise NotVerified("write to Acme")
        if given == b"exit":
            raise SystemExit(3)
        if given == b"yes":
            return "yes"
        return any([hmac.compare_digest(given, each.encode()) for each in secrets])

class Unregistered(PluginVerifier, frozen=True):
    pass
"""
VERIFIERS = """
[pubsubflow.verifiers]
acme = acme_signing:AcmeSigned
broken = acme_gone:Nothing
other = json:dumps
"""


@contextmanager
def distribution(folder, monkeypatch, entry_points, **modules):
    """Install modules with entry points for the block."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    info = folder / "acme-1.2.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(entry_points)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(folder))
    plugins._points.cache_clear()
    try:
        yield
    finally:
        plugins._points.cache_clear()
