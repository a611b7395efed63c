"""DAGs of a folder, executed in this process for the commands that test them."""

from collections.abc import Sequence
from pathlib import Path

import anyio

from pubsubflow.airflow.outside.standalone import RunningBundles
from pubsubflow.authoring.dag import DAG
from pubsubflow.authoring.dag_files import BundleFolder
from pubsubflow.authoring.registry import LoadedDefinitions
from pubsubflow.authoring.source_location import suggestion
from pubsubflow.errors import ConfigError, DefinitionError
from pubsubflow.loader.folder import Folder
from pubsubflow.loader.once import load_once
from pubsubflow.loader.settings import LoaderSettings
from pubsubflow.model.spec import DagSpec, LoadedFile

DEFAULT_FOLDER = Path("dags")


def open_dag(
    folder: Path, dag_id: str, settings: LoaderSettings, bundles: RunningBundles | None = None
) -> DAG:
    """Return a DAG of a folder; its file is executed in this process.

    The files are first imported in processes of their own, under the time limit, so that a file
    which hangs or crashes is named.

    Args:
        folder: The DAGs folder, or one file.
        dag_id: Id of the DAG.
        settings: Limits of the loader.
        bundles: Bundles of Airflow's files, if there are any.

    Raises:
        ConfigError: The folder does not exist, or no file in it defines the DAG.
        DefinitionError: No file defines the DAG, and one of them cannot be imported.
    """
    bundles = bundles or RunningBundles()
    files = anyio.run(_load, folder, settings, bundles)
    found = _find(files, dag_id)
    place = Folder(folder, bundles.kinds, bundles.elsewhere)
    base = place.scan(settings.max_bundle_files).base_of(found.file)
    root = str(place.path_of(base))
    path = found.file[len(base) + 1 :] if base else found.file
    definitions = LoadedDefinitions(path, found.variables)
    BundleFolder.enter(root, root, bundles.kinds.get(base, "")).execute(path, definitions)
    dag: DAG = definitions.dags[dag_id]
    return dag


async def _load(
    folder: Path, settings: LoaderSettings, bundles: RunningBundles
) -> list[LoadedFile]:
    kinds, elsewhere = bundles.kinds, bundles.elsewhere
    return await load_once(folder, settings=settings, kinds=kinds, elsewhere=elsewhere)


def _find(files: Sequence[LoadedFile], dag_id: str) -> DagSpec:
    specs = {dag.dag_id: dag for file in files for dag in file.dags}
    if dag_id in specs:
        return specs[dag_id]
    broken = next((file for file in files if file.error), None)
    if broken is not None:
        raise DefinitionError(
            f"no file defines DAG {dag_id!r}, and one cannot be imported: {broken.error}"
        )
    if not specs:
        raise ConfigError("no file here defines a DAG: name the folder with --dags")
    raise ConfigError(f"no file here defines DAG {dag_id!r}{suggestion(dag_id, specs)}")
