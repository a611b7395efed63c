"""The daemon's log as JSON: every line is an object, whoever writes it and whatever happens."""

import json
import subprocess
import sys

PROGRAM = """
import logging
import structlog
from pubsubflow.config import LogSettings
from pubsubflow.logging_setup import set_up_logging

set_up_logging(LogSettings(format="json"))
log = structlog.get_logger()
log.info("run.created", run_id="r", text="two\\nlines \\u2192 \\"quoted\\"")
try:
    password = "hunter2"
    raise ValueError("no\\nluck")
except ValueError:
    with structlog.contextvars.bound_contextvars(trace_id="t"):
        log.exception("api.failed", path="/x")
        logging.getLogger("a.library").exception("it said %s", "so")
"""


def test_every_line_is_json_also_of_tracebacks_and_libraries():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    fact, ours, theirs = (json.loads(line) for line in done.stderr.splitlines())
    assert fact["event"] == "run.created"
    assert fact["text"] == 'two\nlines → "quoted"'
    assert {"level", "timestamp", "run_id"} <= fact.keys()
    assert (theirs["event"], theirs["logger"]) == ("it said so", "a.library")
    for line in (ours, theirs):
        assert line["trace_id"] == "t"
        assert line["exception"][0]["exc_type"] == "ValueError"
        assert line["exception"][0]["exc_value"] == "no\nluck"
    assert "hunter2" not in done.stderr
