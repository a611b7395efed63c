"""Options of tasks for a Dask cluster, and the settings of workers."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

from pubsubflow.executors import ExecutorOptions
from pubsubflow.model.ranges import Seconds

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,60}$")]
Address = Annotated[str, Meta(pattern="^(tcp|tls|ws|wss|ucx)://.+")]


class Dask(ExecutorOptions, frozen=True, kw_only=True):
    """Where a task's attempts run: `@task(executor=Dask(resources={"GPU": 1}))`.

    Attributes:
        address: Of the scheduler; empty for that of the worker's settings. Others have to be in
            `addresses` there.
        resources: Dask's resources that an attempt takes while it runs.
        workers: Names, addresses or hosts of the Dask workers that may run it; empty for all.
        priority: Dask runs higher ones first.
        annotations: Further annotations, for plugins of the scheduler.
        result: `dask` keeps large results in the cluster for the tasks of the run that say so, too.
    """

    executor: ClassVar[str] = "dask"
    address: str = ""
    resources: dict[str, float] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)
    priority: int = 0
    annotations: dict[str, Any] = field(default_factory=dict)
    result: Literal["", "dask"] = ""


class DaskSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[executors.dask]`.

    Attributes:
        address: Of the scheduler, for tasks that name none.
        addresses: Of further schedulers, which tasks may name.
        installation: A name that no other installation on the same cluster has: workers look after
            the attempts of their own installation alone.
        lost_seconds: A scheduler that is away for longer has lost what ran on its workers.
        max_result_bytes: A larger encoded result does not stay in a cluster.
        tls_ca_file, tls_client_cert, tls_client_key: Files for `tls://`; left out: Dask's own
            configuration.
    """

    address: Address
    addresses: list[Address] = field(default_factory=list)
    installation: Name = "pubsubflow"
    lost_seconds: Seconds = 30.0
    max_result_bytes: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 512 << 20
    tls_ca_file: Path | None = None
    tls_client_cert: Path | None = None
    tls_client_key: Path | None = None
