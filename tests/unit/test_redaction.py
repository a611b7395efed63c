"""Secrets stay out of what is written."""

import io
import json
import logging

import pytest
import structlog

from pubsubflow.config import LogSettings
from pubsubflow.logging_setup import set_up_logging
from pubsubflow.model.auth import new_token
from pubsubflow.redaction import redact, redact_event

SECRET = new_token()


def test_texts_lose_tokens_credentials_and_users_of_urls():
    text = (
        f"psf {SECRET}, Authorization: Bearer abcdefghijklmnopqrst and "
        "postgres://ann:p%40ss@db.example:5432/x?a=b@c s3://lake/a@b"
    )
    assert redact(text) == (
        "psf psf_***, Authorization: Bearer *** and "
        "postgres://***@db.example:5432/x?a=b@c s3://lake/a@b"
    )
    plain = "a basic transport; see https://example.com/@home and psf_evt"
    assert redact(plain) == plain


def test_facts_lose_what_is_called_a_secret_at_any_depth():
    fact = {
        "event": "x",
        "token": "abc",
        "nats_token": b"abc",
        "tokens": 3,
        "headers": {"Authorization": "Basic x", "Host": "h"},
        "urls": ["nats://u:p@n:4222", "nats://n:4222"],
        "password": None,
    }
    assert redact_event(None, "info", fact) == {
        "event": "x",
        "token": "***",
        "nats_token": "***",
        "tokens": 3,
        "headers": {"Authorization": "***", "Host": "h"},
        "urls": ["nats://***@n:4222", "nats://n:4222"],
        "password": None,
    }


@pytest.fixture
def _quiet():
    """Leave logging as it was."""
    root = logging.getLogger()
    kept, level, config = root.handlers, root.level, structlog.get_config()
    yield
    root.handlers = kept
    root.setLevel(level)
    structlog.configure(**config)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("form", ["json", "console"])
def test_the_daemons_log_holds_no_secret_not_even_in_a_traceback(form):
    stream = io.StringIO()
    set_up_logging(LogSettings(format=form), stream)
    log = structlog.get_logger()
    try:
        int(f"nats://u:hidden@n with {SECRET}")
    except ValueError:
        log.exception("failed", secret="hidden")
    logging.getLogger("library").warning("asked with %s", SECRET)
    written = stream.getvalue()
    assert "failed" in written
    assert "library" in written
    assert "hidden" not in written
    assert SECRET not in written
    if form == "json":
        assert json.loads(written.splitlines()[0])["secret"] == "***"
