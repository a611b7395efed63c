"""Template files: a template field that names a file beside the DAG file holds the file's text."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pubsubflow.authoring.source_location import definition_error, is_own_file, suggestion

MAX_BYTES = 1 << 20


def with_file_texts(
    values: Mapping[str, Any],
    fields: Collection[str],
    endings: Sequence[str],
    *,
    shell_fields: Collection[str],
    task_id: str,
) -> dict[str, Any]:
    """Return the values of the fields that name files, with the files' texts in their place.

    The files are read while the DAG file is executed: so they count as a part of it, and travel
    with it to the workers.

    Args:
        values: Field → value as it is given; nested lists and dicts are looked through.
        fields: The template fields.
        endings: Such as `.sql`.
        shell_fields: Those in which a name without a file is a command.
        task_id: The task, for errors.

    Raises:
        DefinitionError: A file is missing, or is not a text of at most 1 MiB.
    """
    if not endings:
        return {}
    found = {}
    for field in fields:
        value = values.get(field)
        if value is not None:
            changed = _changed(value, tuple(endings), task_id, needed=field not in shell_fields)
            if changed is not value:
                found[field] = changed
    return found


def _changed(value: Any, endings: tuple[str, ...], task_id: str, *, needed: bool) -> Any:
    if isinstance(value, str):
        return _text(value, endings, task_id, needed=needed)
    if isinstance(value, dict):
        found = {
            key: _changed(each, endings, task_id, needed=needed) for key, each in value.items()
        }
        return found if any(found[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        items = [_changed(each, endings, task_id, needed=needed) for each in value]
        changed = any(one is not other for one, other in zip(items, value, strict=True))
        return type(value)(items) if changed else value
    return value


def _text(name: str, endings: tuple[str, ...], task_id: str, *, needed: bool) -> str:
    """Return the text of a file, or the name itself if it does not name one."""
    # Whitespace makes a command or a text of it, as a space at its end does in Airflow.
    if not name.endswith(endings) or any(each.isspace() or each in "{}" for each in name):
        return name
    folders = tuple(dict.fromkeys(_folders()))
    for folder in folders:
        path = folder / name
        if path.is_file():
            return _read(path, name, task_id)
    if not needed or Path(name).is_absolute():
        return name
    beside = [
        each.name
        for folder in folders
        if folder.is_dir()
        for each in folder.iterdir()
        if each.suffix in endings
    ]
    hint = suggestion(name, beside) if beside else ""
    raise definition_error(f"file {name!r} is not beside this file{hint}", task_id=task_id)


def _read(path: Path, name: str, task_id: str) -> str:
    try:
        data = path.read_bytes()
        if len(data) <= MAX_BYTES:
            return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise definition_error(f"file {name!r} cannot be read: {error}", task_id=task_id) from error
    raise definition_error(f"file {name!r} has more than {MAX_BYTES:,} bytes", task_id=task_id)


def _folders() -> Iterator[Path]:
    """Yield the folders of the files that define the task: the nearest, then the DAG file's."""
    frame = inspect.currentframe()
    while frame is not None:
        file = frame.f_globals.get("__file__")
        if isinstance(file, str) and not is_own_file(frame.f_code.co_filename):
            yield Path(file).parent
            if frame.f_code.co_name == "<module>":
                return
        frame = frame.f_back
