"""Options of tasks for their pods, and the settings of workers."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

from pubsubflow.executors import ExecutorOptions

Name = Annotated[str, Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Resources = dict[Literal["requests", "limits"], dict[str, str | int | float]]


class Pod(ExecutorOptions, frozen=True, kw_only=True):
    """The pod of a task's attempts: `@task(executor=Pod(image="acme/train:7"))`.

    Attributes:
        image: With Python and pubsubflow in it; empty for that of the worker's settings.
        resources: Of the container, as in a manifest: `{"limits": {"nvidia.com/gpu": 1}}`. They go
            over what the task declares by its own `resources=`.
        namespace: One of those of the worker's settings; empty for the first.
        service_account: Empty for the namespace's own.
        node_selector: Labels of the nodes on which it may run.
        environment: Further variables.
        labels: Further labels of the pod.
        annotations: Of the pod.
        template: A partial pod, as in a manifest: what is given above goes over it. Its container
            `task` is ours; others run beside it.
    """

    executor: ClassVar[str] = "kubernetes"
    image: str = ""
    resources: Resources = field(default_factory=dict)
    namespace: str = ""
    service_account: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)


class KubernetesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[executors.kubernetes]`.

    Attributes:
        namespace: Where pods and their secrets are made.
        image: Of pods whose tasks name none.
        namespaces: Others that tasks may name.
        installation: A name that no other installation in the namespace has: workers look after
            the pods of their own installation alone.
        kubeconfig: A file of credentials; left out: those of the worker's own pod, or the user's.
        context: Its context; empty for the current one.
        template: A partial pod, under that of the task.
    """

    namespace: Name
    image: str
    namespaces: tuple[Name, ...] = ()
    installation: Name = "pubsubflow"
    kubeconfig: Path | None = None
    context: str = ""
    template: dict[str, Any] = field(default_factory=dict)
