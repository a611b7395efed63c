"""JSON schemas of msgspec types, with the descriptions of fields taken from docstrings."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_origin

import msgspec
from msgspec import Struct
from msgspec.inspect import StructType, Type, multi_type_info

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/{name}"
_SECTION = re.compile(r"^(?:Args|Attributes|Raises|Returns|Yields):\n", flags=re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n(?: {5,}.*|$))*)", flags=re.MULTILINE)


def text_of(documented: object) -> str:
    """Return the part of a docstring before its sections."""
    return _SECTION.split(inspect.getdoc(documented) or "", maxsplit=1)[0].strip()


def describe(types: Sequence[Any]) -> tuple[tuple[Schema, ...], dict[str, Schema]]:
    """Return the schema of each type, and the components to which they refer, by name.

    Raises:
        TypeError: Two different types have one name.
    """
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    structs = {struct.__name__: struct for struct in _structs_of(types)}
    for schema in components.values():
        struct = structs.get(str(schema.get("title", "")).partition("[")[0])
        if struct is not None:
            schema["description"] = text_of(struct)
            _describe_fields(schema, struct)
        elif "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return schemas, components


def parameters_of(struct: type[Struct]) -> tuple[dict[str, Schema], list[str], dict[str, Schema]]:
    """Return the fields of a query string by name, the names of required ones, and components.

    A query string cannot hold null: a field that may be None may be left out.
    """
    (reference,), components = describe([struct])
    schema = components.pop(reference["$ref"].rpartition("/")[2])
    fields = {name: _without_null(field) for name, field in schema["properties"].items()}
    return fields, schema.get("required", []), components


def _without_null(schema: Schema) -> Schema:
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**choices[0], **rest}


def _describe_fields(schema: Schema, struct: type[Struct]) -> None:
    descriptions: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        descriptions |= _attributes(each.__doc__)
    for field in msgspec.structs.fields(struct):
        known: Schema = schema["properties"][field.encode_name]
        if field.name in descriptions:
            known.setdefault("description", descriptions[field.name])


def _attributes(docstring: str | None) -> dict[str, str]:
    """Return the descriptions of attributes in a docstring, by name."""
    _, _, section = inspect.cleandoc(docstring or "").partition("Attributes:\n")
    section = _SECTION.split(section, maxsplit=1)[0]
    return {
        name: " ".join(text.split())
        for names, text in _ENTRY.findall(section)
        for name in names.split(", ")
    }


def _structs_of(types: Sequence[Any]) -> Iterator[type[Struct]]:
    """Yield the Structs that types hold, each once.

    Raises:
        TypeError: Two of them have one name.
    """
    seen: dict[str, type[Struct]] = {}
    for info in _reached(multi_type_info(types), set()):
        if isinstance(info, StructType):
            struct = get_origin(info.cls) or info.cls
            if seen.setdefault(struct.__name__, struct) is not struct:
                raise TypeError(f"two types of the API are named {struct.__name__}")
    yield from seen.values()


def _reached(infos: Iterable[object], seen: set[int]) -> Iterator[Type]:
    """Yield types and all types that they contain."""
    for info in infos:
        # By identity: two equal types may be described apart, and a recursive one contains itself.
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, Type):
            yield info
        if isinstance(info, Struct):
            yield from _reached((getattr(info, name) for name in info.__struct_fields__), seen)
        elif isinstance(info, list | tuple):
            yield from _reached(info, seen)
        elif isinstance(info, Mapping):
            yield from _reached(info.values(), seen)
