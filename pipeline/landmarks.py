"""Landmark files and iris circles: where a face lies in a picture.

A landmarks file is JSON in pixels of the portrait file, after its EXIF orientation:

    {"format": 1, "image_size": [w, h], "points": [[x, y], ...], "irises": [[x, y, r], [x, y, r]]}

or a bare list of points. 68 points are in iBUG/300-W order, 106 in the order of InsightFace's
`2d106det`, 203 in that of LivePortrait's `landmark.onnx`. `image_size` and `irises` may be left
out. Of 106 and 203 points the 68 are derived (`pipeline.landmark_sets`), and all are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import PortraitError
from pipeline.fitting.eyes import dark_discs
from pipeline.fitting.frame import FaceFrame, Window
from pipeline.landmark_sets import ibug_from_dense
from pipeline.types import DENSE_COUNTS, FaceLandmarks, Float32Array, Image

FORMAT: Final = 1
MAX_FILE_BYTES: Final = 256 * 1024

JAW: Final = slice(0, 17)
BROWS: Final = (slice(17, 22), slice(22, 27))
NOSE_BRIDGE: Final = slice(27, 31)
NOSE_BASE: Final = slice(31, 36)
EYES: Final = (slice(36, 42), slice(42, 48))
OUTER_LIPS: Final = slice(48, 60)
INNER_LIPS: Final = slice(60, 68)
MOUTH_CORNERS: Final = (48, 54)

_SHARE_OF_SIZE: Final = 0.02  # tolerance of an aspect ratio when a file's image was resized
_LARGEST: Final = 1e9
_MIN_EYE_DISTANCE_PX: Final = 8.0

# The visible iris is 11.7 mm across (Rüfer et al. 2005, Cornea 24:259) and the lid fissure about
# 30 mm wide, which makes the radius 0.195 of the fissure's width.
_IRIS_RADIUS: Final = 0.195
_IRIS_RADIUS_RANGE: Final = (0.16, 0.25)
_IRIS_REACH: Final = np.array([0.27, 0.12])  # how far a gaze takes it from the eye's middle
_LEAST_IRIS_CONTRAST: Final = 12.0  # of 255, inside the lids
_EYE_WINDOW: Final = Window(-0.75, -0.75, 0.75, 0.75, 64.0)  # in widths of the eye


def load_landmarks(path: Path, image: Image) -> FaceLandmarks:
    """Read a landmarks file that belongs to `image`.

    Args:
        path: the JSON file.
        image: (H, W, 3) uint8 RGB, the picture the points are in; irises that the file does
            not give are measured on it.

    Raises:
        PortraitError: the file cannot be read, or its points cannot be a face in this picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PortraitError(str(path), f"cannot be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise PortraitError(str(path), f"larger than {MAX_FILE_BYTES // 1024} KiB")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PortraitError(str(path), f"not valid JSON: {error}") from error
    return parse_landmarks(document, image, str(path))


def parse_landmarks(document: object, image: Image, where: str) -> FaceLandmarks:
    """Turn a landmarks document into checked landmarks of `image`.

    Args:
        document: what `json.loads` gave for a landmarks file.
        image: (H, W, 3) uint8 RGB.
        where: name for messages.

    Raises:
        PortraitError: naming the field and what would be right.
    """
    fields = {"points": document} if isinstance(document, list) else document
    if not isinstance(fields, dict):
        raise PortraitError(where, "expected an object with `points`, or a list of points")
    known = {"format", "image_size", "points", "irises"}
    if unknown := sorted(str(key) for key in fields.keys() - known):
        raise PortraitError(where, f"{unknown[0]}: unknown field; known are {sorted(known)}")
    if fields.get("format", FORMAT) != FORMAT:
        raise PortraitError(where, f"format: expected {FORMAT}, got {fields['format']!r}")
    scale = _scale_to(image, fields.get("image_size"), where)
    points = _numbers(fields.get("points"), "points", 2, where)
    if len(points) not in (68, *DENSE_COUNTS):
        raise PortraitError(
            where,
            "points: expected 68 (iBUG), 106 (InsightFace) or 203 (LivePortrait) points, "
            f"got {len(points)}",
        )
    points = points * np.float32(scale)
    _check_inside(points, "points", image, where)
    dense, source = None, "file"
    if len(points) in DENSE_COUNTS:
        dense = points
        points, complete = ibug_from_dense(dense)
        source = "file" if complete else "anchors"
    check_geometry(points, where)
    given = fields.get("irises")
    if given is None:
        irises = estimate_irises(image, points)
    else:
        irises = _numbers(given, "irises", 3, where) * np.float32(scale)
        _check_irises(irises, points, where)
    return FaceLandmarks(points, irises, source, dense)


def document_of(landmarks: FaceLandmarks) -> dict[str, Any]:
    """What `parse_landmarks` takes to give the same landmarks again."""
    points = landmarks.points if landmarks.dense is None else landmarks.dense
    return {
        "format": FORMAT,
        "points": [[float(x), float(y)] for x, y in points],
        "irises": [[float(each) for each in iris] for iris in landmarks.irises],
    }


def eye_centres(points: Float32Array) -> Float32Array:
    """Mean of each eye's contour: (2, 2) float32, the eye at the image's left first."""
    return np.stack([points[eye].mean(axis=0) for eye in EYES]).astype(np.float32)


def check_geometry(points: Float32Array, where: str) -> None:
    """Refuse points that cannot be an upright face seen from the front.

    Args:
        points: (68, 2) float32 pixels, iBUG order.
        where: name for messages.

    Raises:
        PortraitError: naming the points and what would be right.
    """
    left, right = eye_centres(points)
    distance = float(np.hypot(*(right - left)))
    if distance < _MIN_EYE_DISTANCE_PX:
        raise PortraitError(
            where,
            f"points 36-47: the eyes are {distance:.1f} pixels apart; "
            f"at least {_MIN_EYE_DISTANCE_PX:.0f} are needed",
        )
    across = (right - left) / distance
    down = np.array([-across[1], across[0]], np.float32)
    if across[0] < 0.5:
        raise PortraitError(
            where,
            "points 36-47: the eye at the image's left comes first and the head is upright "
            "within 60 degrees; mirror or rotate the points",
        )
    mouth = points[list(MOUTH_CORNERS)].mean(axis=0)
    middle = (left + right) / 2
    if float((mouth - middle) @ down) < 0.2 * distance:
        raise PortraitError(where, "points 48-67: the mouth has to lie below the eyes")
    if float((points[8] - mouth) @ down) < 0.05 * distance:
        raise PortraitError(where, "point 8: the chin has to lie below the mouth")
    widths = (
        ("points 36 and 39", points[39] - points[36]),
        ("points 42 and 45", points[45] - points[42]),
        ("points 48 and 54", points[54] - points[48]),
        ("points 0 and 16", points[16] - points[0]),
    )
    for name, span in widths:
        if not 0.1 * distance < float(span @ across) < 6 * distance:
            raise PortraitError(
                where, f"{name}: expected the corner at the image's left first, and apart"
            )


def estimate_irises(image: Image, points: Float32Array) -> Float32Array:
    """Find the irises as dark discs inside the eye contours.

    The centre is where dark discs inside the contour get most votes, the radius where the rings'
    mean brightness rises most (Daugman 1993, integro-differential operator, on the two side arcs
    that lids do not cover). Both stay near what anatomy allows, so a closed or blurred eye gives an
    average iris in its middle.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (68, 2) float32 pixels, iBUG order.

    Returns:
        (2, 3) float32 (x, y, radius) in pixels, the eye at the image's left first.
    """
    return np.stack([_estimate_iris(image, points[eye]) for eye in EYES])


def _estimate_iris(image: Image, contour: Float32Array) -> Float32Array:
    eye = FaceFrame.from_eyes(contour[0], contour[3])  # unit: the width of the eye
    # Of the three channels, green tells iris from skin and is not as noisy as blue.
    green = np.ascontiguousarray(eye.sample(image, _EYE_WINDOW)[..., 1])
    patch = np.asarray(cv2.GaussianBlur(green, (0, 0), 0.025 * _EYE_WINDOW.px), np.float32)
    outline = eye.to_face(contour)
    inside = np.zeros(patch.shape, np.uint8)
    cv2.fillPoly(inside, [np.rint(_EYE_WINDOW.pixels(outline) * 16).astype(np.int32)], 1, shift=4)
    values = patch[inside > 0]
    centre, radius = outline.mean(axis=0), _IRIS_RADIUS
    if values.size >= 16:
        low, high = np.percentile(values, [5, 90])
        contrast = float(high - low)
        if contrast >= _LEAST_IRIS_CONTRAST:
            dark = np.clip((low + 0.7 * contrast - patch) / contrast, 0, 1) * inside
            found = _darkest_disc(patch, dark)
            if found is not None:
                centre = np.clip(found, centre - _IRIS_REACH, centre + _IRIS_REACH)
                radius = _iris_radius(patch, centre)
    x, y = eye.to_image(centre[None])[0]
    return np.array([x, y, radius * eye.unit], np.float32)


def _darkest_disc(patch: Float32Array, dark: Float32Array) -> npt.NDArray[np.floating] | None:
    """Where discs of an iris's size get the most votes, weighted with darkness."""
    least, most = (radius * _EYE_WINDOW.px for radius in _IRIS_RADIUS_RANGE)
    votes = dark_discs(patch, least, most) * dark
    weight = np.where(votes > 0.7 * votes.max(), votes, 0)
    total = float(weight.sum())
    if total <= 0:
        return None
    x, y = _EYE_WINDOW.grid()
    return np.array([float((weight * x).sum()), float((weight * y).sum())]) / total


def _iris_radius(patch: Float32Array, centre: npt.NDArray[np.floating]) -> float:
    """Radius of the ring across which brightness rises most, average unless that is clear."""
    radii = np.linspace(*_IRIS_RADIUS_RANGE, 13)
    side = np.radians(np.arange(-35, 36, 7))
    angles = np.concatenate([side, side + np.pi])
    circles = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * radii[:, None, None]
    at = _EYE_WINDOW.pixels(centre + circles)
    rings = cv2.remap(
        patch, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).mean(axis=1)
    rise = np.gradient(rings)
    if rise.max() < 1.0:
        return _IRIS_RADIUS
    usual = 1 - 0.5 * ((radii - _IRIS_RADIUS) / 0.05) ** 2
    return float(radii[int(np.argmax(rise * np.clip(usual, 0.1, 1)))])


def _scale_to(image: Image, image_size: Any, where: str) -> float:
    """Factor from the file's picture to `image`; pictures are resized, never stretched."""
    if image_size is None:
        return 1.0
    height, width = image.shape[:2]
    is_pair = isinstance(image_size, Sequence) and len(image_size) == 2
    if not is_pair or not all(_is_number(side) and side > 0 for side in image_size):
        raise PortraitError(where, "image_size: expected [width, height] in pixels")
    scale_x, scale_y = width / image_size[0], height / image_size[1]
    if abs(scale_x / scale_y - 1) > _SHARE_OF_SIZE:
        raise PortraitError(
            where,
            f"image_size: the points are for a picture of {image_size[0]} x {image_size[1]}, "
            f"this one is {width} x {height}",
        )
    return float(scale_x)


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that can be a place in a picture; not NaN, not 1e400."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= _LARGEST


def _numbers(value: Any, field: str, columns: int, where: str) -> Float32Array:
    shape = "[x, y]" if columns == 2 else "[x, y, radius]"
    if not isinstance(value, list) or not value:
        raise PortraitError(where, f"{field}: expected a list of {shape}")
    for index, row in enumerate(value):
        if not isinstance(row, list) or len(row) != columns or not all(map(_is_number, row)):
            raise PortraitError(where, f"{field}[{index}]: expected {shape} as finite numbers")
    return np.array(value, np.float32)


def _check_inside(points: Float32Array, field: str, image: Image, where: str) -> None:
    height, width = image.shape[:2]
    x, y = points[:, 0], points[:, 1]
    outside = (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
    if outside.any():
        index = int(np.argmax(outside))
        raise PortraitError(
            where,
            f"{field}[{index}]: ({x[index]:.1f}, {y[index]:.1f}) lies outside the picture "
            f"of {width} x {height} pixels",
        )


def _check_irises(irises: Float32Array, points: Float32Array, where: str) -> None:
    if irises.shape != (2, 3):
        raise PortraitError(where, f"irises: expected two of [x, y, radius], got {len(irises)}")
    for index, eye in enumerate(EYES):
        contour = points[eye]
        width = float(np.hypot(*(contour[3] - contour[0])))
        offset = float(np.hypot(*(irises[index, :2] - contour.mean(axis=0))))
        if offset > 0.75 * width or not 0.05 * width < irises[index, 2] < 0.5 * width:
            raise PortraitError(
                where, f"irises[{index}]: expected a circle inside the eye of points {eye.start}-"
                f"{eye.stop - 1}, the eye at the image's left first",
            )  # fmt: skip
