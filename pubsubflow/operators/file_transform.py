"""The operator that copies a file through a function or a command."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pubsubflow.authoring.runtime.bash import run_bash, trace_variables
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.tasks.operators import Operator
from pubsubflow.hooks.connection import library
from pubsubflow.model.connections import Connection

Transform = Callable[[Path, Path], object]


class FileTransformOperator(Operator):
    """Copies a file from one place to another, and transforms it on the way.

    Both places are URLs of any store that fsspec knows: `s3://`, `gs://`, `az://`, `sftp://`, a
    path. What is written becomes visible as a whole, when the transformation has succeeded. The
    result is the destination.

    Args:
        source: URL or path of the file.
        destination: Where it goes.
        transform: A function of two paths, of a copy of the source and of the file to write; or a
            command for bash, with both in `$SOURCE` and `$DESTINATION`. Without it the file is
            copied.
        source_connection: A connection whose `extra` and secrets are the options of fsspec.
        destination_connection: The same, for the destination.
    """

    template_fields = ("source", "destination")

    def __init__(
        self,
        *,
        source: str,
        destination: str,
        transform: Transform | str | None = None,
        source_connection: str | Connection | None = None,
        destination_connection: str | Connection | None = None,
        **kwargs: Any,
    ) -> None:
        if transform is not None and not (callable(transform) or isinstance(transform, str)):
            raise definition_error(
                f"transform must be a function of two paths, or a command, not {transform!r}",
                task_id=kwargs.get("task_id"),
            )
        self.source, self.destination, self.transform = source, destination, transform
        self.source_connection = source_connection
        self.destination_connection = destination_connection
        super().__init__(**kwargs)

    def execute(self, ctx: Context) -> str:
        """Copy and transform the file."""
        core = library("fsspec.core", "files")
        with tempfile.TemporaryDirectory(prefix="pubsubflow-") as folder:
            before, after = Path(folder, "source"), Path(folder, "destination")
            with (
                core.open(self.source, "rb", **_options(ctx, self.source_connection)) as reader,
                before.open("wb") as writer,
            ):
                shutil.copyfileobj(reader, writer)
            self._transform(ctx, before, after)
            size = after.stat().st_size
            options = _options(ctx, self.destination_connection)
            files, path = core.url_to_fs(self.destination, **options)
            # A store of objects shows a whole object or none; a folder needs the transaction.
            with files.transaction, after.open("rb") as reader, files.open(path, "wb") as writer:
                shutil.copyfileobj(reader, writer)
        ctx.log.info("file.written", destination=self.destination, bytes=size)
        for uri in ctx.task.outlets:
            ctx.emit(uri, extra={"bytes": size})
        return self.destination

    def _transform(self, ctx: Context, before: Path, after: Path) -> None:
        if self.transform is None:
            before.rename(after)
        elif isinstance(self.transform, str):
            places = {"SOURCE": str(before), "DESTINATION": str(after)}
            run_bash(self.transform, {**trace_variables(ctx.trace), **places})
        else:
            self.transform(before, after)


def _options(ctx: Context, connection: str | Connection | None) -> Mapping[str, Any]:
    """Return the options of fsspec that a connection holds; of type `aws`, those of s3fs."""
    if connection is None:
        return {}
    found = ctx.connection(connection) if isinstance(connection, str) else connection
    if found.kind != "aws":
        return {**found.extra, **found.secrets}
    extra = found.extra
    client = {"region_name": extra.get("region"), "endpoint_url": extra.get("endpoint_url")}
    return {
        "key": extra.get("access_key_id"),
        "secret": found.secrets.get("secret_access_key"),
        "token": found.secrets.get("session_token"),
        "client_kwargs": {name: value for name, value in client.items() if value},
    }
