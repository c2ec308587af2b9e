"""Bodies of requests that are one JSON object: read as their type, refused in words of JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Final, TypeVar

import msgspec

from adapters.forms import bad_field
from adapters.producer_messages import shortened
from pipeline.errors import ErrorCode, InvalidEventError

_T = TypeVar("_T")

_IN_WORDS: Final = {
    "str": "text",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}


def decoded(body: bytes, kind: type[_T], pattern: str = "") -> _T:
    """Read a body.

    Args:
        pattern: what the field that has to match a pattern takes.

    Raises:
        InvalidEventError: it is no JSON, a key is there twice, or it is not of that type.
    """
    try:
        found = msgspec.json.decode(body, type=kind)
        refuse_double_keys(body)
        return found
    except msgspec.ValidationError as error:
        raise invalid(error, pattern) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidEventError(ErrorCode.INVALID_JSON, f"no valid JSON: {error}"[:200]) from error


def refuse_double_keys(body: bytes, field: str | None = None) -> None:
    """JSON leaves open which of two equal keys counts (RFC 8259, section 4), so neither does.

    Args:
        body: valid JSON.
        field: what it is the value of.
    """

    def checked(pairs: list[tuple[str, object]]) -> None:
        counted = Counter(key for key, _ in pairs)
        for key, times in counted.items():
            if times > 1:
                shown = shortened(key)
                raise bad_field(field or shown, f"{shown} is there twice; send it once")

    # Of numbers nothing is wanted, and of very long ones Python wants too much.
    json.loads(body, object_pairs_hook=checked, parse_int=len, parse_float=len)


def invalid(error: msgspec.ValidationError, pattern: str = "") -> InvalidEventError:
    """msgspec's complaint in words of JSON, with the field that it is about.

    Args:
        pattern: what the field that has to match a pattern takes.
    """
    problem = str(error).replace("`", "")
    missing = re.search(r"missing required field (\w+)", problem)
    if missing:
        field = missing.group(1)
        return bad_field(field, f"{field} is required")
    path = re.search(r" - at (?:key in )?\$\.(\w+)", problem)
    text = re.sub(r" - at .*$", "", problem).replace(", got ", ", not ").replace(" | null", "")
    text = re.sub(r"str matching regex .*", pattern, text).replace("Expected ", "expected ")
    text = re.sub(r"\b(?:str|float|int|bool|array|object)\b", lambda it: _IN_WORDS[it[0]], text)
    field = path.group(1) if path else None
    return bad_field(field, f"{field}: {text}"[:200] if field else text[:200])
