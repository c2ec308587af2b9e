"""Which faces to draw ahead of need, and which of those drawn can stand for a wanted one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

import numpy as np

from pipeline.frame_cache import CachedFrame, FrameCache, FrameKey, face_code
from pipeline.frame_maker import FrameMaker, WantedFace
from pipeline.types import ARKIT_BLENDSHAPES, FaceControls, Portrait

Face = tuple[FaceControls, Mapping[str, float]]
"""Controls, and the emotions' weights on them."""

# Two faces that differ by less are the same expression at other strengths: at their calibrated
# maxima the bundled emotions are 1.3 to 1.8 from neutral, and an eighth of that is a step.
NEAR: Final = 0.45
NEAR_HEAD_DEG: Final = 6.0
# A step stands for the face itself where no emotion is further off than a step.
SAME_WEIGHT: Final = 0.125
# Lids and eyes do not make another expression.
_EXPRESSION: Final = np.array(
    [not name.startswith(("eyeBlink", "eyeLook")) for name in ARKIT_BLENDSHAPES]
)


def stand_in(
    cache: FrameCache, maker: FrameMaker, renderer: str, portrait: Portrait, steps: Sequence[Face]
) -> tuple[FrameKey, CachedFrame] | None:
    """The renderer's cached frame that comes nearest to the first of the steps that has a near one.

    Args:
        steps: the wanted face, simplified; what is least missed left out first.
    """
    for controls, weights in steps:
        key = maker.key(renderer, WantedFace(portrait, face_code(controls), weights))
        found = cache.nearest(key)
        if found is not None and is_near(found[1].controls, controls):
            return found
    return None


def is_near(one: FaceControls, other: FaceControls) -> bool:
    """Both show the same expression, give or take."""
    heads = ((one.pitch, other.pitch), (one.yaw, other.yaw), (one.roll, other.roll))
    if any(abs(a - b) > NEAR_HEAD_DEG for a, b in heads):
        return False
    difference = (one.weights - other.weights)[_EXPRESSION]
    return float(difference @ difference) <= NEAR * NEAR


def shows(weights: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    """The emotions on a face are those that are wanted, to within a step."""
    labels = weights.keys() | wanted.keys()
    return all(abs(weights.get(n, 0.0) - wanted.get(n, 0.0)) <= SAME_WEIGHT for n in labels)


class AheadPlan:
    """What to draw next for one portrait while there is time.

    Args:
        portrait: whose faces.
        first: faces that are needed most, in order, such as the neutral one.
        upcoming: asked anew each time: the faces that are about to be shown.
        later: faces that may be needed some time, in order.
    """

    def __init__(
        self,
        portrait: Portrait,
        first: Sequence[Face],
        upcoming: Callable[[], Iterable[Face]],
        later: Sequence[Face],
    ) -> None:
        self.portrait = portrait
        self._first = list(self._wanted(first))
        self._upcoming = upcoming
        self._later = list(self._wanted(later))
        self._done = 0
        self._failed: set[bytes] = set()

    @property
    def size(self) -> int:
        """How many faces it holds, without the upcoming ones."""
        return len(self._first) + len(self._later)

    @property
    def neutral(self) -> WantedFace:
        """The first face of all."""
        return self._first[0]

    def next(self, renderer: str, cache: FrameCache, maker: FrameMaker) -> WantedFace | None:
        """The first face that is not in the cache."""
        for face in chain(self._first, self._coming(), self._later[self._done :]):
            if face.code in self._failed:
                continue
            if cache.peek(maker.key(renderer, face)) is None:
                return face
            if self._is_next_later(face):
                self._done += 1
        return None

    def keys(self, renderer: str, maker: FrameMaker) -> list[FrameKey]:
        """Of all its frames, needed most first."""
        return [maker.key(renderer, face) for face in (*self._first, *self._later)]

    def give_up(self, face: WantedFace) -> None:
        """Do not ask for this face again."""
        self._failed.add(face.code)

    def _is_next_later(self, face: WantedFace) -> bool:
        return self._done < len(self._later) and self._later[self._done] is face

    def _coming(self) -> Iterator[WantedFace]:
        # Looked at only as far as needed: telling what comes is the dearest part.
        yield from self._wanted(self._upcoming())

    def _wanted(self, faces: Iterable[Face]) -> Iterator[WantedFace]:
        for controls, weights in faces:
            yield WantedFace(self.portrait, face_code(controls), weights)
