"""Hosts of bundles for a command without a daemon: they run as long as a block of it."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from pubsubflow.airflow.outside.hosts import (
    AirflowBundle,
    elsewhere_of,
    find_bundles,
    host_launch,
    host_start,
    hosts_folder,
)
from pubsubflow.airflow.outside.settings import AirflowBundleSettings


class RunningBundles(Struct, frozen=True):
    """Bundles whose hosts run; see `Folder`."""

    kinds: dict[str, str] = {}
    elsewhere: dict[str, Path] = {}


@contextmanager
def running_bundles(
    configured: Mapping[str, AirflowBundleSettings], home: Path
) -> Iterator[RunningBundles]:
    """Run the hosts of bundles for the length of a block; processes forked in it find them.

    Args:
        configured: Name → settings.
        home: Where environments are kept that are made of requirements.

    Raises:
        ConfigError: An interpreter is missing, or lacks something; the message says what.
    """
    if not configured:
        yield RunningBundles()
        return
    bundles = find_bundles(configured, home, None)
    with hosts_folder(None) as folder, ExitStack() as stack:
        for bundle in bundles:
            stack.enter_context(_running(bundle, folder))
        kinds = {each.settings.base(each.name): each.kind for each in bundles}
        yield RunningBundles(kinds, elsewhere_of(bundles))


@contextmanager
def _running(bundle: AirflowBundle, folder: Path) -> Iterator[None]:
    command, env = host_start(host_launch(bundle, folder), os.getpid())
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()
