"""Portrait file to checked picture, landmarks and crop; done once per portrait."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from pipeline.decoding import MAX_BYTES, MAX_PIXELS, decode_image
from pipeline.errors import PortraitError
from pipeline.faces import ONLY_ANCHORS, FaceDetector, FoundFace, find_face
from pipeline.landmarks import eye_centres, load_landmarks
from pipeline.types import FaceLandmarks, Float32Array, Image, Portrait

__all__ = ["LoadedPortrait", "decode_image", "load_portrait", "portrait_from_bytes"]

MAX_SIDE_PX: Final = 1024
"""Larger crops are reduced to this: no frame is larger, and a renderer's memory grows with it."""

# Head and shoulders: the face (jaw to jaw) takes this share of the crop's width, and the eyes
# lie this far down. A photo without that much around the face may be cropped closer, up to
# `_CLOSEST_FACE_SHARE`, before its edges are extended.
FACE_SHARE: Final = 0.42
EYE_LINE: Final = 0.43
_CLOSEST_FACE_SHARE: Final = 0.62
_SMALL_FACE_PX: Final = 80.0

Crop = tuple[float, float, float, float]
"""x, y, width, height in pixels of the picture after its EXIF orientation."""


@dataclass(frozen=True, slots=True)
class LoadedPortrait:
    """A portrait ready to be shown, and what its owner may want to know about it.

    Attributes:
        rivals: further faces in the picture that are not much smaller than the one used.
    """

    portrait: Portrait
    warnings: tuple[str, ...]
    rivals: int = 0


def load_portrait(
    path: Path,
    *,
    landmarks: Path | None = None,
    crop: Crop | None = None,
    detectors: Sequence[FaceDetector] = (),
) -> LoadedPortrait:
    """Load a portrait file, find its face and crop it to head and shoulders.

    Landmarks come from the file named, else from `<stem>.landmarks.json` or `landmarks.json`
    beside the portrait, else the face is looked for in the picture.

    Args:
        path: JPEG, PNG or WebP file of at most 16 MiB and 40 megapixels.
        landmarks: a landmarks file, see `pipeline.landmarks`.
        crop: (x, y, width, height) in pixels, instead of the automatic square one.
        detectors: see `find_face`.

    Raises:
        PortraitError: the picture or its landmarks cannot be used; `no_face` if it shows none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PortraitError(str(path), f"cannot be read: {reason}") from error
    image = decode_image(data, name=str(path))
    beside = landmarks or _landmarks_beside(path)
    if beside:
        given = load_landmarks(beside, image)
        face = FoundFace(given, (ONLY_ANCHORS,) if given.source == "anchors" else ())
    else:
        face = find_face(image, str(path), detectors)
    return _finished(path.stem, image, face, crop)


def portrait_from_bytes(
    data: bytes,
    name: str,
    *,
    crop: Crop | None = None,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    detectors: Sequence[FaceDetector] = (),
) -> LoadedPortrait:
    """Load an uploaded portrait: `load_portrait` without anything beside it.

    Raises:
        PortraitError: as `load_portrait`.
    """
    image = decode_image(data, name=name, max_bytes=max_bytes, max_pixels=max_pixels)
    return _finished(name, image, find_face(image, name, detectors), crop)


def _landmarks_beside(path: Path) -> Path | None:
    for name in (f"{path.stem}.landmarks.json", "landmarks.json"):
        candidate = path.with_name(name)
        if candidate.is_file():
            return candidate
    return None


def _finished(name: str, image: Image, face: FoundFace, crop: Crop | None) -> LoadedPortrait:
    warnings = list(face.warnings)
    points = face.landmarks.points
    if float(np.hypot(*(points[16] - points[0]))) < _SMALL_FACE_PX:
        warnings.append(
            "the face is small and will look soft; use a picture with a face at least "
            f"{_SMALL_FACE_PX:.0f} pixels wide, better 300"
        )
    if crop is None:
        box = _head_and_shoulders(image, points)
    else:
        box = _checked_crop(crop, image, points, name)
    picture, padded = _cut(image, box)
    if padded:
        warnings.append(
            "the face fills the picture, so its edges were extended; "
            "use one that shows the head and shoulders"
        )
    landmarks = face.landmarks.moved(-np.array(box[:2], np.float32))
    picture, landmarks = _reduced(picture, landmarks)
    picture.flags.writeable = False
    portrait = Portrait(name, picture, landmarks, _content_key(picture, landmarks))
    return LoadedPortrait(portrait, tuple(warnings), face.rivals)


Box = tuple[int, int, int, int]
"""left, top, right, bottom in whole pixels, the last two exclusive."""


def _head_and_shoulders(image: Image, points: Float32Array) -> Box:
    """The square around the face that shows head and shoulders, inside the picture if it can."""
    height, width = image.shape[:2]
    face_width = float(np.hypot(*(points[16] - points[0])))
    wanted, closest = face_width / FACE_SHARE, face_width / _CLOSEST_FACE_SHARE
    side = round(max(min(wanted, width, height), closest))
    x, y = eye_centres(points).mean(axis=0)
    x = (x + points[[0, 16], 0].mean()) / 2  # between eyes and jaw where the head is turned
    left, top = round(x - side / 2), round(y - side * EYE_LINE)
    left = min(max(left, 0), width - side) if side <= width else (width - side) // 2
    top = min(max(top, 0), height - side) if side <= height else (height - side) // 2
    return left, top, left + side, top + side


def _checked_crop(crop: Crop, image: Image, points: Float32Array, name: str) -> Box:
    height, width = image.shape[:2]
    if not np.isfinite(crop).all() or min(crop[2:]) < 1:
        raise PortraitError(name, f"crop: expected [x, y, width, height] in pixels, got {crop}")
    x, y, w, h = crop
    left, top, right, bottom = round(x), round(y), round(x + w), round(y + h)
    if left < 0 or top < 0 or right > width or bottom > height:
        raise PortraitError(
            name, f"crop: {list(crop)} reaches outside the picture of {width} x {height} pixels"
        )
    inside = (points >= (left - 0.5, top - 0.5)) & (points <= (right - 0.5, bottom - 0.5))
    if not inside[17:].all():
        raise PortraitError(name, f"crop: {list(crop)} cuts the face off")
    return left, top, right, bottom


def _cut(image: Image, box: Box) -> tuple[Image, bool]:
    """The pixels of a box, edges repeated where it leaves the picture; whether that was so."""
    height, width = image.shape[:2]
    left, top, right, bottom = box
    inner = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    margins = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if not any(margins):
        return inner.copy(), False
    return np.asarray(cv2.copyMakeBorder(inner, *margins, cv2.BORDER_REPLICATE), np.uint8), True


def _reduced(picture: Image, landmarks: FaceLandmarks) -> tuple[Image, FaceLandmarks]:
    """Scale a large picture down to `MAX_SIDE_PX`, landmarks with it."""
    height, width = picture.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return picture, landmarks
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smaller = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    # Pixel centres: 0 lies half a pixel inside the edge before and after.
    return smaller, landmarks.moved(0.5, scale).moved(-0.5)


def _content_key(picture: Image, landmarks: FaceLandmarks) -> str:
    digest = hashlib.sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    digest.update(landmarks.points.tobytes())
    digest.update(landmarks.irises.tobytes())
    if landmarks.dense is not None:
        digest.update(landmarks.dense.tobytes())
    return digest.hexdigest()
