"""Sets of landmarks with more points than the iBUG 68, and what of the 68 they tell.

106 points are in the order of InsightFace's `2d106det`, 203 in that of LivePortrait's
`landmark.onnx`. Of both, the points that LivePortrait's crop and ratios are taken from are known
for certain (`ANCHORS`; specification 5.4 and 8.1). For the others there is no official table:
theirs is the layout that public users of the two networks rely on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.fitting.mean_face import MEAN_JAW
from pipeline.types import DENSE_COUNTS, Float32Array


@dataclass(frozen=True, slots=True)
class Anchors:
    """Indices whose means are the eyes' centres and the mouth's."""

    left_eye: tuple[int, ...]
    right_eye: tuple[int, ...]
    mouth: tuple[int, ...]

    def of(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(3, 2) float64: the eye at the image's left, the other, the mouth."""
        array = np.asarray(points, np.float64)
        return np.stack(
            [array[list(i)].mean(0) for i in (self.left_eye, self.right_eye, self.mouth)]
        )


# Number of points to anchors; specification 5.4, and the same places among the iBUG 68.
ANCHORS: Final = {
    68: Anchors(tuple(range(36, 42)), tuple(range(42, 48)), (48, 54)),
    106: Anchors((33, 35, 40, 39), (87, 89, 94, 93), (52, 61)),
    203: Anchors((0, 6, 12, 18), (24, 30, 36, 42), (48, 66)),
}

# For each iBUG point the nearest of InsightFace's 106 (model zoo, `2d106det`): jaw every other
# point, brows by their upper edge. Its eye corners are 35, 39, 89 and 93, its mouth corners 52, 61.
IBUG_FROM_106: Final[tuple[int, ...]] = (
    1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17,
    43, 48, 49, 51, 50, 102, 103, 104, 105, 101,
    72, 73, 74, 86, 78, 79, 80, 85, 84,
    35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90,
    52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55,
    65, 66, 62, 70, 69, 57, 60, 54,
)  # fmt: skip

# The 203: each eye 24 points (0-23 from the outer corner, 24-47 from the inner one, both over the
# upper lid), outer lips 36 (48-83) and inner lips 24 (84-107) from the image's left corner over the
# top, face outline 37 (108-144) with the chin at 126, each brow 20 (145-164 from the outer end,
# 165-184 from the inner one, both along the upper edge), the nose's sides 185-190 and 191-196,
# pupils 197 and 198, bridge to tip 199-201, base 202.
_NOSE_BASE: Final = 202
_NOSE_TOP: Final = 199
_NOSE_SIDES: Final = (slice(185, 191), slice(191, 197))
_PLACES_IN_203: Final = np.concatenate(
    [
        np.linspace(109, 143, 17),
        np.linspace(145, 155, 5), np.linspace(165, 175, 5),
        np.linspace(_NOSE_TOP, 201, 4), np.full(5, _NOSE_BASE),
        np.arange(0, 24, 4), np.arange(24, 48, 4),
        np.arange(48, 84, 3), np.arange(84, 108, 3),
    ]
)  # fmt: skip
"""For each iBUG point its index among the 203; fractions lie between two of them."""

# Median distance of the 68 from the average face, in distances of the eyes, from which on they are
# no face. A photographed face lies at about 0.1.
_FAR_FROM_AVERAGE: Final = 0.4


def ibug_from_106(points: Float32Array) -> Float32Array:
    """The iBUG 68 of InsightFace's 106 points: (106, 2) float32 to (68, 2) float32."""
    return points[list(IBUG_FROM_106)]


def ibug_from_203(points: Float32Array) -> Float32Array:
    """The iBUG 68 of LivePortrait's 203 points: (203, 2) float32 to (68, 2) float32."""
    below = np.floor(_PLACES_IN_203).astype(int)
    share = (_PLACES_IN_203 - below)[:, None]
    ibug = (1 - share) * points[below] + share * points[below + np.sign(share[:, 0]).astype(int)]
    base = points[_NOSE_BASE]
    along = base - points[_NOSE_TOP]
    for wing, between, side in zip((31, 35), (32, 34), _NOSE_SIDES, strict=True):
        from_axis = (points[side] - base) @ (-along[1], along[0])
        ibug[wing] = points[side][int(np.argmax(np.abs(from_axis)))]
        ibug[between] = (ibug[wing] + base) / 2
    return np.asarray(ibug, np.float32)


def average_face_at(anchors: npt.ArrayLike) -> Float32Array:
    """(68, 2) float32 pixels: the average face with eyes and mouth at (3, 2) anchors."""
    own = np.column_stack([ANCHORS[68].of(MEAN_FACE), np.ones(3)])
    to_image = np.linalg.solve(own, np.asarray(anchors, np.float64))
    face = np.column_stack([MEAN_FACE, np.ones(68)]) @ to_image
    return face.astype(np.float32)


def ibug_from_dense(points: Float32Array) -> tuple[Float32Array, bool]:
    """The iBUG 68 of 106 or 203 points.

    Args:
        points: (106, 2) or (203, 2) float32 pixels.

    Returns:
        (68, 2) float32 pixels, and whether they are the points' own. They are not where the
        points beside the anchors are laid out otherwise than a face: what counts are then the
        eyes and the mouth, and the average face is drawn around these.
    """
    if len(points) not in DENSE_COUNTS:
        raise ValueError(f"expected 106 or 203 points, got {len(points)}")
    anchors = ANCHORS[len(points)].of(points)
    average = average_face_at(anchors)
    own = ibug_from_106(points) if len(points) == 106 else ibug_from_203(points)
    eyes_apart = float(np.hypot(*(anchors[1] - anchors[0])))
    off = float(np.median(np.hypot(*(own - average).T)))
    is_face = off < _FAR_FROM_AVERAGE * eyes_apart
    return (own, True) if is_face else (average, False)


def _mirrored(
    left: tuple[tuple[float, float], ...], order: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """The same points at the image's right, in their order there."""
    return (np.array(left) * (-1, 1))[list(order)]


_BROW: Final = ((-0.92, -0.20), (-0.78, -0.34), (-0.59, -0.39), (-0.39, -0.36), (-0.21, -0.28))
_BRIDGE: Final = ((0.0, 0.0), (0.0, 0.20), (0.0, 0.40), (0.0, 0.58))
_BASE: Final = ((-0.25, 0.67), (-0.12, 0.72), (0.0, 0.75), (0.12, 0.72), (0.25, 0.67))
_EYE: Final = (
    (-0.735, 0.0), (-0.60, -0.085), (-0.41, -0.085), (-0.265, 0.02), (-0.41, 0.065), (-0.59, 0.065)
)  # fmt: skip
_LIPS: Final = (
    (-0.42, 1.08), (-0.27, 0.99), (-0.10, 0.94), (0.0, 0.96), (0.10, 0.94), (0.27, 0.99),
    (0.42, 1.08), (0.27, 1.19), (0.12, 1.25), (0.0, 1.26), (-0.12, 1.25), (-0.27, 1.19),
    (-0.35, 1.08), (-0.12, 1.06), (0.0, 1.07), (0.12, 1.06), (0.35, 1.08), (0.12, 1.10),
    (0.0, 1.11), (-0.12, 1.10),
)  # fmt: skip

MEAN_FACE: Final[Float32Array] = np.concatenate(
    [
        MEAN_JAW,
        _BROW, _mirrored(_BROW, (4, 3, 2, 1, 0)),
        _BRIDGE, _BASE,
        _EYE, _mirrored(_EYE, (3, 2, 1, 0, 5, 4)),
        _LIPS,
    ]
).astype(np.float32)  # fmt: skip
"""(68, 2) float32: iBUG points of the average face, mouth closed, in face units (`mean_face`)."""
