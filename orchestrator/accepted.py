"""Which events were accepted within the last ten minutes: a few bytes for each.

A daemon that runs for months takes tens of thousands of events in ten minutes. Of each it keeps
a hash of the id, one of the body and the time; those of a closed batch in sorted arrays.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from pipeline.types import EmotionEvent

KEPT_S: Final = 600.0
KEPT_EVENTS: Final = 200_000
_BATCH_S: Final = 60.0
_BATCH_EVENTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Known:
    """An event that was accepted.

    Attributes:
        body: hash of all of it but the id.
        at_s: monotonic seconds.
    """

    body: int
    at_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Events that were accepted one after the other, sorted by the hash of their ids.

    Columns of their own, as searching one of a table would copy it first.
    """

    ids: npt.NDArray[np.uint64]
    bodies: npt.NDArray[np.uint64]
    at_s: npt.NDArray[np.float64]
    last_s: float

    @classmethod
    def of(cls, events: Mapping[int, Known]) -> Self:
        """Close a batch; it has one event at least."""
        ids = np.fromiter(events, np.uint64, len(events))
        bodies = np.fromiter((each.body for each in events.values()), np.uint64, len(events))
        at_s = np.fromiter((each.at_s for each in events.values()), np.float64, len(events))
        order = np.argsort(ids)
        return cls(ids[order], bodies[order], at_s[order], float(at_s.max()))

    def find(self, key: np.uint64) -> Known | None:
        """The event whose id has this hash."""
        index = int(self.ids.searchsorted(key))
        if index == len(self.ids) or self.ids[index] != key:
            return None
        return Known(int(self.bodies[index]), float(self.at_s[index]))


class AcceptedEvents:
    """Remembers for ten minutes, and of very many events in that time the newest.

    Hashes are keyed with a secret of this process (BLAKE2b, RFC 7693), so that no two ids can be
    chosen to collide.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._open: dict[int, Known] = {}
        self._open_until_s = 0.0
        self._batches: deque[_Batch] = deque()  # the newest last

    def __len__(self) -> int:
        return len(self._open) + sum(len(batch.ids) for batch in self._batches)

    def add(self, event: EmotionEvent, now_s: float) -> None:
        """Remember it; `now_s` (monotonic seconds) never goes back."""
        self._tidy(now_s)
        if not self._open:
            self._open_until_s = now_s + _BATCH_S
        self._open[self._hash(event.id)] = Known(self._hash(_body(event)), now_s)

    def has(self, event_id: str, now_s: float) -> bool:
        """An event with this id was accepted."""
        return self._find(event_id, now_s) is not None

    def same(self, event: EmotionEvent, now_s: float) -> bool | None:
        """Whether the event that was accepted with this id was the same; None if none was."""
        known = self._find(event.id, now_s)
        return None if known is None else known.body == self._hash(_body(event))

    def _find(self, event_id: str, now_s: float) -> Known | None:
        key = self._hash(event_id)
        known, hashed = self._open.get(key), np.uint64(key)
        for batch in reversed(self._batches):
            if known is not None:
                break
            known = batch.find(hashed)
        return known if known is not None and now_s - known.at_s < KEPT_S else None

    def _tidy(self, now_s: float) -> None:
        """Close the batch that is full or old, and forget those that are over."""
        if self._open and (now_s >= self._open_until_s or len(self._open) >= _BATCH_EVENTS):
            self._batches.append(_Batch.of(self._open))
            self._open = {}
        while self._batches and (
            len(self) >= KEPT_EVENTS or now_s - self._batches[0].last_s >= KEPT_S
        ):
            self._batches.popleft()

    def _hash(self, text: str) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._key).digest()
        return int(struct.unpack("<Q", digest)[0])


def _body(event: EmotionEvent) -> str:
    mix = sorted(event.mix.items())
    times = (event.attack_s, event.hold_s, event.decay_s, event.at_s, event.ttl_s)
    asked = (event.emotion, event.intensity, mix, times, event.policy.value, event.priority)
    return repr(asked)
