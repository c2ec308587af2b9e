"""Photographs for tests: the astronaut with hand-placed landmarks, and pictures without a face."""

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from skimage import data

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

LANDMARKS = Path(__file__).parents[1] / "golden" / "faces" / "astronaut.landmarks.json"

# iBUG points as a mirror shows them.
MIRRORED = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip


@cache
def astronaut() -> Image:
    """(512, 512, 3) uint8 RGB; NASA, public domain."""
    image = np.asarray(data.astronaut(), np.uint8)
    image.flags.writeable = False
    return image


@cache
def astronaut_points() -> Points:
    """(68, 2) landmarks of the astronaut, placed by hand, good to a pixel."""
    points = np.array(json.loads(LANDMARKS.read_text())["points"], np.float64)
    points.flags.writeable = False
    return points


def as_106(points: Points) -> Points:
    """InsightFace's 106 points of a face whose 68 are known; those between in the middle."""
    from pipeline.landmark_sets import IBUG_FROM_106

    dense = np.tile(points.mean(axis=0), (106, 1))
    dense[list(IBUG_FROM_106)] = points
    for lids, (lower, upper) in ((slice(36, 42), (33, 40)), (slice(42, 48), (87, 94))):
        eye = points[lids]
        dense[lower], dense[upper] = eye[[4, 5]].mean(axis=0), eye[[1, 2]].mean(axis=0)
    return dense


def as_203(points: Points) -> Points:
    """LivePortrait's 203 points of a face whose 68 are known, by its groups of points."""

    def along(outline: list[int], count: int, closed: bool = False) -> Points:
        path = points[[*outline, outline[0]] if closed else outline]
        at = np.linspace(0, len(path) - 1, count + closed)[:count]
        return np.stack([np.interp(at, np.arange(len(path)), axis) for axis in path.T], axis=1)

    eyes = [along(list(range(start, start + 6)), 24, closed=True) for start in (36, 42)]
    lips = [
        along(list(range(48, 60)), 36, closed=True), along(list(range(60, 68)), 24, closed=True)
    ]  # fmt: skip
    jaw = along(list(range(17)), 37)
    brows = [
        along([*r, *r[-2:0:-1]], 20, closed=True)
        for r in (list(range(17, 22)), list(range(22, 27)))
    ]
    sides = [along([28, 31, 33], 6), along([28, 35, 33], 6)]
    pupils = np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0)])
    bridge = np.stack([*along([27, 28, 29, 30], 3), points[33]])
    dense = np.concatenate([*eyes, *lips, jaw, *brows, *sides, pupils, bridge])
    assert len(dense) == 203
    return dense


def astronaut_iris_centres() -> Points:
    """(2, 2), placed by hand."""
    return np.array([(202.5, 100.2), (246.7, 102.6)])


def png(image: npt.NDArray[np.generic]) -> bytes:
    """A PNG file of RGB, grey or RGBA pixels, 8 or 16 bits."""
    pixels = image
    if image.ndim == 3:
        pixels = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return cv2.imencode(".png", pixels)[1].tobytes()


def jpeg(image: Image, quality: int = 95) -> bytes:
    """A JPEG file of RGB pixels."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[..., ::-1], flags)[1].tobytes()


def webp(image: Image) -> bytes:
    """A WebP file of RGB pixels, without loss."""
    return cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
