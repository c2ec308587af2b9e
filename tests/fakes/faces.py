"""The bundled portrait as a checked `Portrait`, and variants of it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from pipeline.landmarks import load_landmarks
from pipeline.mesh.anatomy import MIRRORED
from pipeline.types import FaceLandmarks, Float32Array, Image, Portrait

ASTRONAUT = Path(__file__).parents[2] / "config" / "characters" / "astronaut"


@cache
def astronaut() -> Portrait:
    """The astronaut, uncropped."""
    image = cv2.cvtColor(cv2.imread(str(ASTRONAUT / "portrait.jpg")), cv2.COLOR_BGR2RGB)
    landmarks = load_landmarks(ASTRONAUT / "landmarks.json", image)
    return Portrait("astronaut", image, landmarks, "astronaut")


def mirrored() -> Portrait:
    """The astronaut in a mirror: her left is at the image's left."""
    portrait = astronaut()
    width = portrait.image.shape[1]
    order = [MIRRORED[i] for i in range(68)]
    points = portrait.landmarks.points[order] * [-1, 1] + [width - 1, 0]
    irises = portrait.landmarks.irises[::-1] * [-1, 1, 1] + [width - 1, 0, 0]
    return _portrait("mirrored", portrait.image[:, ::-1], points, irises)


def turned(degrees: float) -> Portrait:
    """The astronaut with the whole picture turned clockwise."""
    portrait = astronaut()
    height, width = portrait.image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    image = cv2.warpAffine(portrait.image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return _portrait("turned", image, *_moved(lambda p: p @ matrix[:, :2].T + matrix[:, 2]))


def scaled(size_px: int) -> Portrait:
    """The astronaut in another resolution."""
    portrait = astronaut()
    factor = size_px / portrait.image.shape[1]
    image = cv2.resize(portrait.image, (size_px, size_px), interpolation=cv2.INTER_AREA)
    points, irises = _moved(lambda p: (p + 0.5) * factor - 0.5)
    irises[:, 2] *= factor
    return _portrait("scaled", image, points, irises)


def toned(change: Callable[[Float32Array], Float32Array]) -> Portrait:
    """The astronaut with other brightness or colours: float32 in, float32 out."""
    portrait = astronaut()
    image = np.clip(change(portrait.image.astype(np.float32)), 0, 255).astype(np.uint8)
    return _portrait("toned", image, portrait.landmarks.points, portrait.landmarks.irises)


def _moved(move: Callable[[Float32Array], Float32Array]) -> tuple[Float32Array, Float32Array]:
    landmarks = astronaut().landmarks
    irises = landmarks.irises.copy()
    irises[:, :2] = move(irises[:, :2])
    return move(landmarks.points), irises


def _portrait(name: str, image: Image, points: Float32Array, irises: Float32Array) -> Portrait:
    landmarks = FaceLandmarks(points, irises, "file")
    return Portrait(name, np.ascontiguousarray(image), landmarks, name)
