"""JSON Schema of the types that messages are decoded and encoded with.

msgspec says what of a type holds on the wire; the `Attributes:` of its docstring say what the
fields mean. Both end up in the schema, under `#/components/schemas`.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import msgspec

_REF: Final = "#/components/schemas/{name}"
_ENTRY: Final = re.compile(
    r"^    (?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n {8,}.*)*)", re.MULTILINE
)


class Schemas:
    """Collects the components of one document.

    Attributes:
        components: name to schema, of every type that was asked for and those inside it.
    """

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}
        self._found: dict[str, Any] = {}

    def of(self, *types: Any) -> dict[str, Any]:
        """The schema of a value that is of one of these types.

        Objects that tell themselves apart by `type` are told apart by that. What a type checks
        beyond its fields' types, it says in `schema_rules`.

        Raises:
            ValueError: two different types have the same name.
        """
        schemas, found = msgspec.json.schema_components(types, ref_template=_REF)
        for name, schema in found.items():
            if self._found.setdefault(name, schema) != schema:
                raise ValueError(f"there are two types {name!r}; rename one")
            self.components.setdefault(name, _documented(schema))
        for kind, schema in zip(types, schemas, strict=True):
            self.resolved(schema).update(getattr(kind, "schema_rules", {}))
        if len(schemas) == 1:
            (schema,) = schemas
            return schema
        tags = {tag: schema["$ref"] for schema in schemas if (tag := self._tag(schema))}
        if len(tags) < len(schemas):
            return {"anyOf": list(schemas)}
        discriminator = {"propertyName": "type", "mapping": tags}
        return {"oneOf": list(schemas), "discriminator": discriminator}

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The component that a schema refers to; the schema itself if it refers to none."""
        name = schema.get("$ref", "").rpartition("/")[2]
        found: dict[str, Any] = self.components[name] if name else schema
        return found

    def _tag(self, schema: dict[str, Any]) -> str | None:
        kind = self.resolved(schema).get("properties", {}).get("type", {})
        found: str | None = kind.get("const")
        return found


def _documented(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its docstring taken apart: the fields' meanings go to the fields."""
    text, attributes = _split(schema.get("description", ""))
    made = {**schema, "description": text} if text else dict(schema)
    if "properties" in schema:
        made["properties"] = {name: _plain(each) for name, each in schema["properties"].items()}
        _explain(made["properties"], attributes)
    return made


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy; an enumeration of one value is a constant, of which generators make a literal."""
    if len(values := schema.get("enum", ())) != 1:
        return dict(schema)
    others = {key: value for key, value in schema.items() if key != "enum"}
    return {"type": "string", "const": values[0]} | others


def _explain(properties: dict[str, Any], attributes: str) -> None:
    """Give fields their meaning, in front of what their type says that they take."""
    for entry in _ENTRY.finditer(attributes):
        meaning = " ".join(entry["text"].split()).removesuffix(".")
        for name in entry["names"].split(", "):
            if name in properties:
                allowed = properties[name].get("description")
                text = f"{meaning}: {allowed}" if allowed else meaning
                properties[name]["description"] = text


def _split(docstring: str) -> tuple[str, str]:
    """What stands before `Attributes:`, and the entries below it."""
    text, _, attributes = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    return text.strip(), attributes
