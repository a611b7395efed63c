"""Executors: tasks get the same of each, the worker's own processes and those of a plugin."""

import os
import signal

import pytest

from pubsubflow.worker.executors.settings import load_executor
from support.executor_conformance import ExecutorConformance, OutlivingConformance

pytestmark = pytest.mark.anyio


class TestLocal(ExecutorConformance):
    pass


class TestBare(OutlivingConformance):
    value = '"bare"'
    imports = "from psf_test_executor import Bare"
    refused = 'Bare(refused="no such image")'

    def offer(self, folder):
        return [load_executor("bare", {"folder": str(folder / "bare"), "slots": 20})]

    async def kill(self, label, folder):
        executor = self.offer(folder)[0].executor
        os.killpg(executor.pid(label), signal.SIGKILL)
