"""The dump of a file's structure as JSON, without a daemon."""

import sys

import msgspec

from pubsubflow.airflow.inside.structures import loaded_structure


def main(path: str, root: str, legacy: str = "") -> None:
    """Print the structure of a DAG file in one line of JSON.

    Args:
        path: The file.
        root: The folder of all files.
        legacy: Any text, when names and keywords of older versions are replaced.
    """
    found = loaded_structure(path, root=root, legacy=bool(legacy))
    sys.stdout.write(msgspec.json.encode(found, enc_hook=repr).decode() + "\n")
