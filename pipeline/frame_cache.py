"""Encoded frames by the face they show: least recently used out first, bounded in bytes.

All stages share one cache. None can crowd the others out: what is on stage keeps its share of
the room, whatever the others put in.
"""

from __future__ import annotations

import itertools
import struct
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from cachetools import Cache

from pipeline.ports import Metric, Metrics
from pipeline.types import FaceControls, Float32Array, ImageFormat

# On the bundled 512 px portrait jawOpen moves the chin by 42 px, further than any other
# blendshape moves anything, and 0.1 degree of head by at most 0.24 px (optical flow, mesh
# renderer): a frame is never more than 0.17 px from the face that was asked for.
WEIGHT_STEPS: Final = 128
HEAD_STEPS_PER_DEG: Final = 10
_WEIGHTS: Final = 52
_HEAD: Final = struct.Struct("<3h")

# What an entry costs beside its image: key, controls, weights, a row of the index.
# Measured with tracemalloc on CPython 3.11 and rounded up.
ENTRY_OVERHEAD_BYTES: Final = 2048


def face_code(controls: FaceControls) -> bytes:
    """The quantised controls as 58 bytes: equal codes are the same face."""
    steps = np.rint(controls.weights * WEIGHT_STEPS).astype(np.uint8)
    return steps.tobytes() + _HEAD.pack(
        round(controls.pitch * HEAD_STEPS_PER_DEG),
        round(controls.yaw * HEAD_STEPS_PER_DEG),
        round(controls.roll * HEAD_STEPS_PER_DEG),
    )


def face_of(code: bytes) -> FaceControls:
    """The controls in the middle of the step that `code` names."""
    weights = np.divide(np.frombuffer(code, np.uint8, _WEIGHTS), WEIGHT_STEPS, dtype=np.float32)
    pitch, yaw, roll = (step / HEAD_STEPS_PER_DEG for step in _HEAD.unpack_from(code, _WEIGHTS))
    return FaceControls(weights, pitch, yaw, roll)


def quantise(controls: FaceControls) -> FaceControls:
    """Blendshapes to 1/128, head angles to 0.1 degree; idempotent."""
    return face_of(face_code(controls))


class FrameFamily(NamedTuple):
    """All frames that differ in the face alone.

    Attributes:
        portrait: the portrait's content hash.
        renderer: name of the renderer that drew them.
        size_px: (width, height).
        quality: 1..100, as given to the encoder.
    """

    portrait: str
    renderer: str
    size_px: tuple[int, int]
    image_format: ImageFormat
    quality: int


class FrameKey(NamedTuple):
    """One frame: its family and the face's code."""

    family: FrameFamily
    code: bytes

    def in_format(self, image_format: ImageFormat) -> FrameKey:
        """The same face in another encoding."""
        return FrameKey(self.family._replace(image_format=image_format), self.code)


@dataclass(frozen=True, slots=True, eq=False)
class CachedFrame:
    """An encoded frame and the face it shows.

    Attributes:
        data: one complete image file.
        controls: the quantised controls it was drawn with.
        weights: emotion label to weight on the face when it was drawn.
    """

    data: bytes
    controls: FaceControls
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the start, and what is held now."""

    hits: int
    misses: int
    entries: int
    pinned: int
    bytes: int
    max_bytes: int


class FrameCache:
    """Frames by key. Safe from every thread.

    Pinned frames are never evicted. They count towards the bound and can take at most half
    of it, so that there is always room for the others. Where owners want to pin more than that
    together, each has an equal part.

    Of the others the least recently used goes first. But portraits of which frames are pinned are
    on stage, and the frames of one that takes no more than its share of the room stay: those of
    the greediest go instead.

    Args:
        max_bytes: images and what is kept beside them.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._lock = threading.Lock()
        self._metrics = metrics
        self._pins: dict[Hashable, list[FrameKey]] = {}
        self._pinned: Counter[FrameKey] = Counter()
        self._pinned_bytes = 0
        self._index: dict[FrameFamily, _Index] = {}
        self._store = _Store(max_bytes, self._is_pinned, self._unindex)
        self._hits = 0
        self._misses = 0

    def get(self, key: FrameKey) -> CachedFrame | None:
        """The frame, which becomes the most recently used; counted as a hit or a miss."""
        with self._lock:
            frame = self._store.get(key)
            self._hits += frame is not None
            self._misses += frame is None
        self._metrics.count(Metric.CACHE_MISSES if frame is None else Metric.CACHE_HITS)
        return frame

    def peek(self, key: FrameKey) -> CachedFrame | None:
        """`get` that is not counted."""
        with self._lock:
            return self._store.get(key)

    def put(self, key: FrameKey, frame: CachedFrame) -> bool:
        """Keep the frame; False if it cannot be kept beside what is pinned."""
        with self._lock:
            kept = self._put(key, frame)
        self._publish()
        return kept

    def pin(self, owner: Hashable, keys: Iterable[FrameKey]) -> int:
        """Keep these from eviction, in place of what `owner` had pinned before.

        Returns:
            How many are pinned: those that are here, in order, until half of the bound is taken.
        """
        with self._lock:
            self._release(owner)
            taken: list[FrameKey] = []
            for key in dict.fromkeys(keys):
                frame = self._store.get(key)
                if frame is None:
                    continue
                if not self._room_to_pin(0 if self._pinned[key] else _size_of(frame), taken):
                    break
                self._pinned_bytes += 0 if self._pinned[key] else _size_of(frame)
                self._pinned[key] += 1
                taken.append(key)
            self._pins[owner] = taken
            self._tell_who_is_on()
            return len(taken)

    def unpin(self, owner: Hashable) -> None:
        """Let go of what `owner` has pinned; harmless if that is nothing."""
        with self._lock:
            self._release(owner)
            self._tell_who_is_on()

    def nearest(self, key: FrameKey) -> tuple[FrameKey, CachedFrame] | None:
        """The frame of `key`'s family whose face is nearest, in steps of the quantised controls.

        One matrix-vector product: some 20 us at 5000 frames.
        """
        with self._lock:
            index = self._index.get(key.family)
            if index is None:
                return None
            found = FrameKey(key.family, index.nearest(key.code))
            return found, self._store[found]

    @property
    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                entries=len(self._store),
                pinned=sum(count > 0 for count in self._pinned.values()),
                bytes=int(self._store.currsize),
                max_bytes=int(self._store.maxsize),
            )

    def _put(self, key: FrameKey, frame: CachedFrame) -> bool:
        if self._is_pinned(key):
            # The same key is the same bytes; a pinned entry keeps the size it was pinned with.
            return True
        if _size_of(frame) > self._store.maxsize - self._pinned_bytes:
            return False
        self._store[key] = frame
        self._index.setdefault(key.family, _Index()).add(key.code)
        return True

    def _release(self, owner: Hashable) -> None:
        for key in self._pins.pop(owner, ()):
            self._let_go(key)

    def _let_go(self, key: FrameKey) -> None:
        self._pinned[key] -= 1
        if not self._pinned[key]:
            del self._pinned[key]
            self._pinned_bytes -= _size_of(self._store[key])

    def _room_to_pin(self, size: int, taken: list[FrameKey]) -> bool:
        """Whether so much more can be pinned, if others give back what is beyond their part."""
        limit = self._store.maxsize // 2
        part = limit // (len(self._pins) + 1)
        if self._pinned_bytes + size <= limit:
            return True
        if self._bytes_of(taken) + size > part:
            return False
        while self._pinned_bytes + size > limit:
            greediest = max(self._pins.values(), key=self._bytes_of, default=[])
            if self._bytes_of(greediest) <= part:
                return False
            self._let_go(greediest.pop())
        return True

    def _bytes_of(self, keys: Iterable[FrameKey]) -> int:
        return sum(_size_of(self._store[key]) for key in keys)

    def _tell_who_is_on(self) -> None:
        self._store.on_stage = {_group_of(key) for keys in self._pins.values() for key in keys}

    def _is_pinned(self, key: FrameKey) -> bool:
        return key in self._pinned

    def _unindex(self, key: FrameKey) -> None:
        index = self._index[key.family]
        index.remove(key.code)
        if not len(index):
            del self._index[key.family]

    def _publish(self) -> None:
        self._metrics.set(Metric.CACHE_BYTES, float(self._store.currsize))
        self._metrics.set(Metric.CACHE_ENTRIES, float(len(self._store)))


def _size_of(frame: CachedFrame) -> int:
    return len(frame.data) + ENTRY_OVERHEAD_BYTES


Group = tuple[str, tuple[int, int], int]
"""Portrait, size and quality: what a stage shows as long as it keeps its character."""


def _group_of(key: FrameKey) -> Group:
    return key.family.portrait, key.family.size_px, key.family.quality


class _Store(Cache[FrameKey, CachedFrame]):
    """A cache that passes over pinned entries, is fair to groups, and tells what it evicts.

    Attributes:
        on_stage: groups that have a share of the room.
    """

    def __init__(
        self,
        max_bytes: int,
        is_pinned: Callable[[FrameKey], bool],
        on_evict: Callable[[FrameKey], None],
    ) -> None:
        super().__init__(max_bytes, getsizeof=_size_of)
        self._is_pinned = is_pinned
        self._on_evict = on_evict
        self.on_stage: set[Group] = set()
        # Of each group its entries, least recently used first, with the count at their last use.
        self._uses: dict[Group, OrderedDict[FrameKey, int]] = {}
        self._bytes: Counter[Group] = Counter()
        self._clock = itertools.count()

    def __getitem__(self, key: FrameKey) -> CachedFrame:
        frame = super().__getitem__(key)
        self._used(key)
        return frame

    def __setitem__(self, key: FrameKey, frame: CachedFrame) -> None:
        if key in self:
            del self[key]  # or making room for the larger one might evict the smaller
        super().__setitem__(key, frame)
        self._bytes[_group_of(key)] += _size_of(frame)
        self._used(key)

    def __delitem__(self, key: FrameKey) -> None:
        group, size = _group_of(key), _size_of(super().__getitem__(key))
        super().__delitem__(key)
        self._bytes[group] -= size
        del self._uses[group][key]
        if not self._uses[group]:
            del self._uses[group], self._bytes[group]

    def popitem(self) -> tuple[FrameKey, CachedFrame]:
        """Remove and return the entry that goes next."""
        oldest = {group: key for group in self._uses if (key := self._oldest(group)) is not None}
        if not oldest:
            raise KeyError("everything is pinned")
        group = min(oldest, key=lambda each: self._uses[each][oldest[each]])
        if self._has_its_share(group):
            others = [each for each in oldest if not self._has_its_share(each)]
            group = max(others, key=self._bytes.__getitem__, default=group)
        key = oldest[group]
        frame = super().__getitem__(key)
        del self[key]
        self._on_evict(key)
        return key, frame

    def _used(self, key: FrameKey) -> None:
        uses = self._uses.setdefault(_group_of(key), OrderedDict())
        uses[key] = next(self._clock)
        uses.move_to_end(key)

    def _oldest(self, group: Group) -> FrameKey | None:
        """The least recently used entry that is not pinned."""
        uses = self._uses[group]
        for _ in range(len(uses)):
            key = next(iter(uses))
            if not self._is_pinned(key):
                return key
            uses.move_to_end(key)  # so it is seldom met again
        return None

    def _has_its_share(self, group: Group) -> bool:
        """It is on stage and takes no more than its part; one part is for who is to come."""
        return (
            group in self.on_stage and self._bytes[group] * (len(self.on_stage) + 1) <= self.maxsize
        )


class _Index:
    """The codes of one family as points, for the nearest one."""

    def __init__(self) -> None:
        self._codes: list[bytes] = []
        self._rows: dict[bytes, int] = {}
        self._points = np.empty((16, _WEIGHTS + 3), np.float32)
        self._norms = np.empty(16, np.float32)

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, code: bytes) -> None:
        if code in self._rows:
            return
        row = len(self._codes)
        if row == len(self._norms):
            self._points = np.concatenate((self._points, np.empty_like(self._points)))
            self._norms = np.concatenate((self._norms, np.empty_like(self._norms)))
        point = _point(code)
        self._points[row] = point
        self._norms[row] = point @ point
        self._codes.append(code)
        self._rows[code] = row

    def remove(self, code: bytes) -> None:
        """The last row moves into the gap."""
        row = self._rows.pop(code)
        last = self._codes.pop()
        if last != code:
            self._codes[row] = last
            self._rows[last] = row
            self._points[row] = self._points[len(self._codes)]
            self._norms[row] = self._norms[len(self._codes)]

    def nearest(self, code: bytes) -> bytes:
        """By |p|^2 - 2 p.q, which orders as |p - q| does.

        Exact in float32: whole numbers below 52 * 128^2 + 3 * 450^2 < 2^21.
        """
        count = len(self._codes)
        distances = self._norms[:count] - 2.0 * (self._points[:count] @ _point(code))
        return self._codes[int(np.argmin(distances))]


def _point(code: bytes) -> Float32Array:
    point = np.empty(_WEIGHTS + 3, np.float32)
    point[:_WEIGHTS] = np.frombuffer(code, np.uint8, _WEIGHTS)
    point[_WEIGHTS:] = _HEAD.unpack_from(code, _WEIGHTS)
    return point
