"""JSON Schema of a params type, exact enough that the daemon refuses what the type refuses.

The daemon never imports user code, so it can only check against the schema. This is the only module
that uses msgspec's private names; its tests check them.
"""

from typing import Any

from msgspec import inspect
from msgspec._json_schema import _build_name_map, _collect_component_types, _SchemaGenerator

from pubsubflow.model.runs.patterns import check_pattern

_ZONED = {True: "", False: "local-", None: "any-"}


def params_schema(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a type; for its formats see `model.runs.params`.

    Raises:
        TypeError: It has no JSON Schema.
        DefinitionError: A pattern in it cannot be used.
    """
    info = inspect.type_info(kind)
    parts = _collect_component_types([info])
    names = _build_name_map(parts)
    generator = _ExactSchemas(names)
    schema = generator.to_schema(info)
    schema["$defs"] = {
        names[part]: generator.to_schema(each, check_ref=False) for part, each in parts.items()
    }
    return schema


class _ExactSchemas(_SchemaGenerator):
    """msgspec's generator, which leaves out what times without a zone and keys must look like."""

    def to_schema(self, t: inspect.Type, check_ref: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - msgspec's signature
        schema: dict[str, Any] = super().to_schema(t, check_ref)
        while isinstance(t, inspect.Metadata):
            t = t.type
        if isinstance(t, inspect.DateTimeType):
            schema["format"] = f"{_ZONED[t.tz]}date-time"
        elif isinstance(t, inspect.TimeType):
            schema["format"] = f"{_ZONED[t.tz]}time"
        elif isinstance(t, inspect.StrType) and t.pattern is not None:
            check_pattern(t.pattern)
        elif isinstance(t, inspect.DictType) and not isinstance(t.key_type, inspect.AnyType):
            keys = self.to_schema(t.key_type)
            if keys.pop("type", None) == "integer":
                # Keys of JSON are texts: bounds of numbers do not apply to them.
                keys = {"pattern": r"^(0|-?[1-9][0-9]*)$"}
            if keys:
                schema["propertyNames"] = keys
        return schema
