"""Where faces are: scikit-image's trained frontal cascade, and the eyes inside its boxes.

The cascade (local binary patterns; Liao et al. 2007) finds nearly every frontal face but also
bark and buttons. What tells them apart is how many neighbouring windows agree: a face is found
some twenty times over in steps of place and size, a false alarm seldom more than thrice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.fitting.appearance import blurred
from pipeline.fitting.eyes import dark_discs
from pipeline.fitting.frame import FaceFrame, Window
from pipeline.fitting.likeness import Likeness, likeness
from pipeline.types import Float32Array, Image

SEARCH_SIDE_PX: Final = 400  # longer side of the picture that the cascade scans
_LEAST_FACE_PX: Final = 24  # the cascade's own window, in that picture
_SCALE_STEP: Final = 1.1
_LARGE_SHARE: Final = 0.45  # of the shorter side: windows that may reach beyond the picture,
_MARGIN_SHARE: Final = 0.25  # and by how much

# The eyes in a box of the cascade: distance and height above the box's middle, in its widths.
_EYES_APART: Final = 0.41
_EYES_ABOVE: Final = 0.125


@dataclass(frozen=True, slots=True)
class Candidate:
    """A square that may hold a face.

    Attributes:
        x, y: its middle, pixels of the picture.
        width: pixels.
        tilt: radians by which it is rotated, clockwise as seen.
        hits: how many windows of the cascade agree.
    """

    x: float
    y: float
    width: float
    tilt: float
    hits: int


def find_candidates(image: Image, tilt: float = 0.0) -> list[Candidate]:
    """Squares that may hold a face whose head is tilted so, most agreed on first.

    The cascade tolerates some 15 degrees either way of `tilt`.

    Args:
        image: (H, W, 3) uint8 RGB.
        tilt: radians, clockwise as seen.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    scale = min(1.0, SEARCH_SIDE_PX / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    clusters = _clusters(_scan(small, tilt), scale, tilt)
    return sorted(clusters, key=lambda candidate: -candidate.hits)


@cache
def _cascade() -> Any:
    # Imported here: scikit-image takes longer to import than a face to find.
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())  # type: ignore[no-untyped-call]


def _scan(grey: npt.NDArray[np.uint8], tilt: float) -> npt.NDArray[np.float64]:
    """Every window that the cascade takes for a face: rows of x, y of the middle and width.

    Large windows may reach beyond the picture, where its edges are repeated: a face that fills
    the picture is less than the cascade expects around it.
    """
    height, width = grey.shape
    if min(height, width) < _LEAST_FACE_PX:
        return np.zeros((0, 3))
    large = max(_LEAST_FACE_PX, round(_LARGE_SHARE * min(height, width)))
    margin = round(_MARGIN_SHARE * min(height, width))
    padded = cv2.copyMakeBorder(grey, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    windows = [
        _windows(grey, tilt, (_LEAST_FACE_PX, large - 1)),
        _windows(np.asarray(padded, np.uint8), tilt, (large, min(padded.shape)))
        - (margin, margin, 0),
    ]
    return np.concatenate(windows)


def _windows(
    grey: npt.NDArray[np.uint8], tilt: float, sides: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Windows whose side lies between two limits, both inclusive, rows as in `_scan`."""
    least, most = sides
    if most < least:
        return np.zeros((0, 3))
    height, width = grey.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    turn = cv2.getRotationMatrix2D(tuple(middle), float(np.degrees(tilt)), 1.0)
    turned = grey
    if tilt:
        turned = np.asarray(
            cv2.warpAffine(grey, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
    found = _cascade().detect_multi_scale(
        img=turned,
        scale_factor=_SCALE_STEP,
        step_ratio=1,
        min_size=(least, least),
        max_size=(most, most),
        min_neighbor_number=1,
        intersection_score_threshold=1.1,  # never reached, so that no windows are merged
    )
    if not found:
        return np.zeros((0, 3))
    boxes = np.array([(w["c"], w["r"], w["width"]) for w in found], np.float64)
    centres = boxes[:, :2] + boxes[:, 2:] / 2 - 0.5
    back = cv2.invertAffineTransform(turn)
    return np.column_stack([centres @ back[:, :2].T + back[:, 2], boxes[:, 2]])


def _clusters(windows: npt.NDArray[np.float64], scale: float, tilt: float) -> Iterator[Candidate]:
    """Windows that agree within a quarter of their width, largest group first."""
    rest = windows
    while len(rest):
        x, y, width = rest.T
        near = (
            (np.abs(x[:, None] - x) < 0.25 * width[:, None])
            & (np.abs(y[:, None] - y) < 0.25 * width[:, None])
            & (np.abs(np.log(width[:, None] / width)) < 0.35)
        )
        group = near[int(near.sum(axis=1).argmax())]
        middle_x, middle_y, side = rest[group].mean(axis=0)
        yield Candidate(
            (middle_x + 0.5) / scale - 0.5,
            (middle_y + 0.5) / scale - 0.5,
            side / scale,
            tilt,
            int(group.sum()),
        )
        rest = rest[~group]


_CUT_WIDTHS: Final = 3.2  # side of the part around a candidate that is looked at, in its widths
_CUT_FACE_PX: Final = 400.0  # to which larger candidates are reduced; no detail that counts is lost


@dataclass(frozen=True, slots=True, eq=False)
class CutOut:
    """The part of a picture around a candidate, reduced if large.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        candidate: in pixels of `image`.
        corner: (2,) left and top of the part, whole pixels of the picture.
        scale: (2,) pixels of `image` per pixel of the picture, x and y.
    """

    image: Image
    candidate: Candidate
    corner: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    def to_picture(self, points: Float32Array) -> Float32Array:
        """Pixels of `image` to pixels of the picture, (N, 2)."""
        return ((points + 0.5) / self.scale - 0.5 + self.corner).astype(np.float32)


def cut_out(image: Image, candidate: Candidate) -> CutOut:
    """Cut a candidate out with all around it that may be part of the face.

    Args:
        image: (H, W, 3) uint8 RGB.
        candidate: a square in it.
    """
    half = 0.5 * _CUT_WIDTHS * candidate.width
    size = np.array(image.shape[1::-1])
    middle = np.array([candidate.x, candidate.y])
    corner = np.clip(np.floor(middle - half), 0, size - 1).astype(int)
    end = np.clip(np.ceil(middle + half), corner + 1, size).astype(int)
    part = image[corner[1] : end[1], corner[0] : end[0]]
    reduced = np.maximum(np.round((end - corner) * min(1.0, _CUT_FACE_PX / candidate.width)), 1)
    scale = reduced / (end - corner)
    if (scale < 1).any():
        target = (int(reduced[0]), int(reduced[1]))
        part = np.asarray(cv2.resize(part, target, interpolation=cv2.INTER_AREA), np.uint8)
    x, y = (middle - corner + 0.5) * scale - 0.5
    moved = replace(candidate, x=float(x), y=float(y), width=candidate.width * float(scale.mean()))
    return CutOut(part, moved, corner.astype(np.float64), scale)


@dataclass(frozen=True, slots=True, eq=False)
class EyePair:
    """Two dark discs that may be eyes.

    Attributes:
        centres: (2, 2) float32 pixels, the one at the image's left first.
        fitness: how dark and round they are and how well placed, as a log value; 0 is good.
        likeness: of the whole face about them.
    """

    centres: Float32Array
    fitness: float
    likeness: Likeness

    @property
    def score(self) -> float:
        """What the best pair usually has most of."""
        return self.fitness + LIKENESS_WEIGHT * self.likeness.best


LIKENESS_WEIGHT: Final = 4.0
_PX: Final = 48.0
_WINDOW: Final = Window(-1.25, -0.85, 1.25, 1.75, _PX)
_ROLLS: Final = (-0.3, -0.15, 0.0, 0.15, 0.3)  # radians, about the candidate's tilt
_PEAKS: Final = 7
_PAIRS: Final = 30
_MOST_PAIRS: Final = 4
_MARGIN: Final = 2.0  # by how much a pair that is still worth fitting may fall behind the best
_APART: Final = 0.12  # how far pairs differ at one end, in distances of the eyes


def find_eyes(image: Image, candidate: Candidate) -> list[EyePair]:
    """Pairs in a candidate's square that may be the eyes: the likeliest first.

    Args:
        image: (H, W, 3) uint8 RGB.
        candidate: where to look.
    """
    found: list[EyePair] = []
    for value, centres in _distinct(image, candidate):
        pair = EyePair(centres, value, likeness(image, FaceFrame.from_eyes(*centres)))
        found.append(pair)
    found.sort(key=lambda pair: -pair.score)
    return [pair for pair in found[:_MOST_PAIRS] if pair.score > found[0].score - _MARGIN]


def _distinct(image: Image, candidate: Candidate) -> list[tuple[float, Float32Array]]:
    """The fittest pairs for any roll, without those that are nearly the same: fitness, centres."""
    pairs: list[tuple[float, Float32Array]] = []
    for roll in _ROLLS:
        frame = _frame_in(candidate, candidate.tilt + roll)
        pairs.extend(_pairs(frame, image, roll))
    pairs.sort(key=lambda pair: -pair[0])
    chosen: list[tuple[float, Float32Array]] = []
    for value, centres in pairs:
        near = _APART * float(np.hypot(*(centres[1] - centres[0])))
        if all(np.abs(centres - other).max() > near for _, other in chosen):
            chosen.append((value, centres))
        if len(chosen) == _PAIRS:
            break
    return chosen


def _frame_in(candidate: Candidate, roll: float) -> FaceFrame:
    above = _EYES_ABOVE * candidate.width
    return FaceFrame(
        candidate.x + np.sin(roll) * above,
        candidate.y - np.cos(roll) * above,
        _EYES_APART * candidate.width,
        roll,
    )


def _pairs(frame: FaceFrame, image: Image, roll: float) -> Iterator[tuple[float, Float32Array]]:
    """Pairs of dark discs near the average eyes: log value and centres in the picture."""
    grey = np.asarray(frame.sample(image, _WINDOW).mean(axis=2), np.float32)
    votes = dark_discs(blurred(grey, 0.025 * _PX), 0.05 * _PX, 0.13 * _PX)
    around = blurred(grey, 0.22 * _PX)
    spread = np.sqrt(blurred((grey - around) ** 2, 0.22 * _PX)) + 4
    dark = np.clip((around - blurred(grey, 0.05 * _PX)) / spread, 0, 2.5)
    strength = votes * np.sqrt(dark)
    bars = blurred(dark.astype(np.float32), 0.03 * _PX)
    x, y = _WINDOW.grid()
    sides = []
    for side in (-1, 1):
        off = x - side * 0.5
        prior = np.exp(-0.5 * ((off / 0.22) ** 2 + (y / 0.25) ** 2))
        allowed = (np.abs(off) < 0.45) & (np.abs(y) < 0.5)
        sides.append(_peaks(np.asarray(strength * prior * allowed, np.float32)))
    for left in sides[0]:
        for right in sides[1]:
            ends = _WINDOW.units([left[:2], right[:2]])
            across = ends[1] - ends[0]
            value = 0.5 * float(np.log(left[2] * right[2] + 1e-6))
            value -= 0.5 * (float(np.log(np.hypot(*across))) / 0.16) ** 2
            value -= 0.5 * (float(np.arctan2(across[1], across[0])) / 0.13) ** 2
            value -= 0.5 * (float(ends[:, 0].mean()) / 0.15) ** 2
            value -= 0.5 * (roll / 0.3) ** 2
            value += (
                sum(_under_a_brow(bars, int(peak[0]), int(peak[1])) for peak in (left, right)) / 2
            )
            yield value, frame.to_image(ends)


def _peaks(values: Float32Array) -> list[tuple[float, float, float]]:
    """Local maxima, strongest first: column, row, value."""
    size = 2 * int(0.06 * _PX) + 1
    highest = cv2.dilate(values, np.ones((size, size), np.uint8))
    rows, columns = np.nonzero((values >= highest) & (values > 0))
    order = np.argsort(-values[rows, columns], kind="stable")[:_PEAKS]
    return [(float(columns[i]), float(rows[i]), float(values[rows[i], columns[i]])) for i in order]


def _under_a_brow(bars: Float32Array, column: int, row: int) -> float:
    """Positive if something dark lies above (a brow), negative if below (this is the brow)."""
    half, near, far = (round(share * _PX) for share in (0.12, 0.14, 0.36))
    columns = slice(max(column - half, 0), column + half + 1)
    above = bars[max(row - far, 0) : max(row - near, 1), columns]
    below = bars[row + near : row + far, columns]
    return float(min(above.max(initial=0), 1.5) - min(below.max(initial=0), 1.5))
