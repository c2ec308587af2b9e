"""Prepared portraits, as many as fit a number of bytes. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from cachetools import LRUCache


class Sized(Protocol):
    """Anything that knows what memory it holds."""

    @property
    def bytes(self) -> int: ...


Prepared = TypeVar("Prepared", bound=Sized)


class PreparedCache(Generic[Prepared]):
    """Keeps what was used last within `max_bytes`; what alone is larger is not kept.

    Memory is counted whenever a portrait is asked for: one whose half precision overflowed has
    grown by what the wider type keeps of it. Belongs to the thread that owns the model.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[str, Prepared] = LRUCache(
            max_bytes, getsizeof=lambda prepared: prepared.bytes
        )

    @property
    def bytes(self) -> int:
        """Memory held."""
        return int(self._entries.currsize)

    def get(self, key: str, prepare: Callable[[], Prepared]) -> Prepared:
        """The portrait of a key, prepared now if it is not there."""
        prepared = self._entries.get(key) or prepare()
        self._keep(key, prepared)
        return prepared

    def clear(self) -> None:
        """Let go of everything."""
        self._entries.clear()

    def _keep(self, key: str, prepared: Prepared) -> None:
        if prepared.bytes <= self._entries.maxsize:
            self._entries[key] = prepared
        else:
            self._entries.pop(key, None)
