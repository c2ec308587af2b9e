"""Checking real messages against the descriptions, without mercy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator


def closed(schema: Any) -> Any:
    """The schema without room for what it does not name: a new field fails until described."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    is_object = made.get("type") == "object" and isinstance(made.get("properties"), dict)
    if is_object and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made


class Contract:
    """The schemas of one document.

    Args:
        document: OpenAPI or AsyncAPI.
        strict: refuse fields that are not described, which the protocol allows for.
    """

    def __init__(self, document: Mapping[str, Any], *, strict: bool = False) -> None:
        self.document = document
        components = {"schemas": document["components"]["schemas"]}
        self._components = closed(components) if strict else components

    def problems(self, value: Any, schema: Mapping[str, Any]) -> list[str]:
        """What is wrong with a value, as sentences with the path to it."""
        validator = Draft202012Validator({**schema, "components": self._components})
        return [
            f"{'.'.join(map(str, error.absolute_path)) or 'it'}: {error.message}"
            for error in validator.iter_errors(value)
        ]

    def message_problems(self, message: Mapping[str, Any]) -> list[str]:
        """What is wrong with a message of a WebSocket, by AsyncAPI."""
        described = self.document["components"]["messages"].get(message["type"])
        if described is None:
            return [f"there is no message {message['type']!r} in the description"]
        return self.problems(message, described["payload"])

    def answer_problems(self, request: str, status: int, body: Any) -> list[str]:
        """What is wrong with the JSON answer to `GET /path`, by OpenAPI."""
        method, _, path = request.partition(" ")
        responses = self.document["paths"][path][method.lower()]["responses"]
        if str(status) not in responses:
            return [f"{request} has no status {status} in the description"]
        schema = responses[str(status)]["content"]["application/json"]["schema"]
        return self.problems(body, schema)
