"""Messages that nobody would send, made from the descriptions of those that are sent.

Everything follows from a seed, so that a message that did harm can be made again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from adapters.producer_messages import MESSAGES
from adapters.schemas import Schemas

DEEP: Final = 200
# Names and texts that lead somewhere, where somebody makes a path or a line of them.
TRICKS: Final = (
    "../../etc/passwd", "..\\..\\windows", "/etc/passwd", "C:\\x", "a\x00b", "\x00", "%2e%2e%2f",
    "..%c0%af", "．．／", "astronaut/../astronaut", "~root", "$(id)", "`id`", "{{7*7}}", "%s%n",
    "<script>", "'; DROP TABLE x;--", "\r\nSet-Cookie: a=b", "\u202egnp.exe", "\ufeff", "ﬀ", "İ",
    "\U0001f600" * 30, "a" * 129, "a" * 5000, "", " ", "NaN", "null", "__proto__", "constructor",
    "[happy:1e999]", "[happy" * 50, "<|ACT {", "<emotion name=\"" + "x" * 300,
)  # fmt: skip
NUMBERS: Final = (
    0, -1, 1, 0.5, -0.0, 1.0000001, 9, 10, 64, 60_000, 60_001, 3_600_000, 3_600_001, 2**31, 2**53,
    2**63, 2**64, 10**30, -(10**30), 1e308, -1e308, 5e-324, 1e-9,
)  # fmt: skip
# What Python's own writer would not write.
BY_HAND: Final = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400, "0" + "1" * 10, "+1", "1.",
    ".5", "0x10", "1_000", "'a'", '"\\ud800"', '"\\udfff\\ud800"', '"\\x41"', '"\n"', '"\t"', "tru",
    "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * 30_000, "",
    "1e" + "9" * 40, "-", "/* */1", "{,}", "[1,]", '"' + "x" * 40_000 + '"',
)  # fmt: skip

_SCHEMAS: Final = Schemas()
_ONE_OF: Final = _SCHEMAS.of(*MESSAGES)
_STRUCTS: Final = {
    kind: _SCHEMAS.components[reference.rpartition("/")[2]]
    for kind, reference in _ONE_OF["discriminator"]["mapping"].items()
}
KINDS: Final = tuple(_STRUCTS)


class Fuzzer:
    """An endless supply of messages.

    Args:
        seed: the same one, the same messages.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._made = 0
        self._ways: tuple[tuple[Callable[[], bytes], int], ...] = (
            (self._right, 4),
            (self._wrong_field, 8),
            (self._left_out, 2),
            (self._by_hand, 4),
            (self._twice, 2),
            (self._damaged, 4),
            (self._noise, 1),
            (self._something_else, 1),
        )

    def __iter__(self) -> Iterator[bytes]:
        ways, weights = zip(*self._ways, strict=True)
        while True:
            (way,) = self._random.choices(ways, weights)
            self._made += 1
            yield way()

    # --- ways to go wrong -----------------------------------------------------------------

    def _right(self) -> bytes:
        return _written(self._message())

    def _wrong_field(self) -> bytes:
        message = self._message()
        for _ in range(self._random.randint(1, 2)):
            message[self._field(message)] = self._anything(3)
        return _written(message)

    def _left_out(self) -> bytes:
        message = self._message()
        del message[self._random.choice(list(message))]
        return _written(message)

    def _by_hand(self) -> bytes:
        """A value that is no JSON, or JSON that nobody writes."""
        message = self._message()
        message[self._field(message)] = "PLACE"
        return _written(message).replace(b'"PLACE"', self._random.choice(BY_HAND).encode(), 1)

    def _twice(self) -> bytes:
        """A key that is there twice."""
        message = self._message()
        key = self._random.choice(list(message))
        again = json.dumps({key: self._random.choice([message[key], self._anything(1)])})
        return _written(message)[:-1] + b"," + again[1:].encode()

    def _damaged(self) -> bytes:
        """Right, and then cut off, or with some bytes changed, added or taken away."""
        data = bytearray(_written(self._message()))
        for _ in range(self._random.randint(1, 4)):
            place = self._random.randrange(len(data) + 1)
            match self._random.randrange(4):
                case 0:
                    del data[place:]
                case 1:
                    del data[place : place + self._random.randint(1, 5)]
                case 2:
                    data[place:place] = self._random.randbytes(self._random.randint(1, 4))
                case _:
                    data[place : place + 1] = self._random.randbytes(1)
        return bytes(data)

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 7, 60, 700)))

    def _something_else(self) -> bytes:
        """JSON, but no message."""
        return _written(self._anything(5))

    # --- parts ------------------------------------------------------------------------------

    def _message(self) -> dict[str, Any]:
        """A message that is right by its schema, with most of its fields."""
        kind = self._random.choice(KINDS)
        made: dict[str, Any] = {"type": kind}
        schema = _STRUCTS[kind]
        for name, field in schema["properties"].items():
            if name in schema.get("required", ()) or self._random.random() < 0.6:
                made.setdefault(name, self._fitting(field))
        if "id" in schema["properties"]:
            made["id"] = f"fuzz-{self._made}"
        if made.get("stage") is not None:
            made["stage"] = "main"
        return made

    def _fitting(self, schema: dict[str, Any]) -> Any:
        schema = _SCHEMAS.resolved(schema)
        pick = self._random
        if "anyOf" in schema:
            return self._fitting(pick.choice(schema["anyOf"]))
        if "enum" in schema:
            return pick.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        match schema.get("type"):
            case "string":
                longest = min(schema.get("maxLength", 40), 40)
                words = ("happy", "joy", "astronaut", "[sad] so", "x" * longest)
                return pick.choice(words)[:longest]
            case "integer":
                return pick.randint(schema.get("minimum", -3), schema.get("maximum", 10))
            case "number":
                return pick.uniform(schema.get("minimum", -2.0), schema.get("maximum", 2.0))
            case "boolean":
                return pick.random() < 0.5
            case "null":
                return None
            case "object":
                inside = schema.get("properties")
                if inside:
                    return {name: self._fitting(each) for name, each in inside.items()}
                names = pick.sample(("happy", "sad", "jawOpen", "mouthSmileLeft"), 2)
                return {name: pick.random() for name in names}
        return pick.choice((None, 1, "x", [1], {"a": 1}))

    def _anything(self, depth: int) -> Any:
        pick = self._random
        match pick.randrange(7 if depth else 4):
            case 0:
                return pick.choice(NUMBERS)
            case 1:
                return pick.choice(TRICKS)
            case 2:
                return pick.choice((None, True, False))
            case 3:
                return pick.choice(("happy", "main", "jawOpen", "set", KINDS[0]))
            case 4:
                return [self._anything(depth - 1) for _ in range(pick.randrange(4))]
            case 5:
                many = pick.choice((1, 2, 70))
                return {f"{pick.choice(TRICKS)[:40]}{i}": pick.random() for i in range(many)}
            case _:
                names = pick.sample((*TRICKS, "happy", "jawOpen", "yaw"), 3)
                return {name: self._anything(depth - 1) for name in names}

    def _field(self, message: dict[str, Any]) -> str:
        schema = _STRUCTS.get(str(message["type"]), {"properties": ()})
        return self._random.choice([*message, *schema["properties"], "surplus"])


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
